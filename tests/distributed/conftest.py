"""The corpus and the recipe of the end-to-end tests."""

from tests.end_to_end.conftest import corpus, recipe  # noqa: F401
