"""Domain weights that the paper and upstream have published, by name, each with what it refers to."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import NamedTuple

from doremi import files
from doremi.errors import InputError
from doremi.weights import DomainWeights

EPOCHS = "pile-epochs"  # the one entry that holds epochs, not weights


class PublishedWeights(NamedTuple):
    """Weights with their origin."""

    name: str
    weights: DomainWeights
    tokenizer: str  # that the sequences were counted under
    counts: str  # what a share is a share of
    source: str


def names() -> tuple[str, ...]:
    """Of all published weights."""
    return tuple(name for name in _content() if name != EPOCHS)


def load(name: str) -> PublishedWeights:
    """The published weights of that name.

    Raises:
        InputError: there are none; the message lists the names.
    """
    if name not in names():
        raise InputError(f"no published weights {name!r}; there are {', '.join(names())}")
    entry = _content()[name]
    weights = DomainWeights(entry["weights"], source=name)
    return PublishedWeights(name, weights, entry["tokenizer"], entry["counts"], entry["source"])


def pile_epochs() -> dict[str, float]:
    """How often the Pile means each of its domains to be seen (Gao et al. 2020)."""
    return dict(_content()[EPOCHS]["epochs"])


@cache
def _content() -> dict[str, dict]:
    with resources.as_file(resources.files("doremi") / "data" / "published_weights.json") as path:
        return files.read_json(path)
