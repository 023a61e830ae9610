"""Messages are short, however large what they show."""

from __future__ import annotations

import pickle

import pytest

from doremi.errors import InputError, MissingFileError, RunFailedError, check_choice, shorten, shown


@pytest.mark.parametrize("kind", [InputError, MissingFileError, RunFailedError])
def test_a_long_message_keeps_its_beginning_and_its_end(kind):
    error = kind("recipe.yaml: key " + "x" * 1_000_000 + " is unknown; take it out")
    assert 3_990 < len(str(error)) <= 4_000
    assert str(error).startswith("recipe.yaml: key xxx")
    assert str(error).endswith("xxx is unknown; take it out")
    assert "...[996,0" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(kind("as it is")) == "as it is"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("short", "'short'"),
        (3.5, "3.5"),
        (None, "None"),
        ([1, 2], "[1, 2]"),
        ({"a": [1]}, "{'a': [1]}"),
        (10**20, "100000000000000000000"),
        ([10**5_000], "[an integer of 16,610 bits]"),
        (list(range(1_000_000)), "[0, 1, 2, 3, 4, 5, ...]"),
        (b"ab", "b'ab'"),
    ],
    ids=lambda _: "",
)
def test_values(value, text):
    assert shown(value) == text


@pytest.mark.parametrize("value", ["x" * 10**6, "\x00" * 100, ["x" * 10**6] * 10**5, {"x" * 10**6: 1}, b"\x00" * 10**6])
def test_long_values_have_both_ends(value):
    assert 40 < len(shown(value)) <= 80
    assert "..." in shown(value)


def test_nested_values_end_somewhere():
    nested: list = []
    nested.append(nested)
    assert shown(nested) == "[[[[...]]]]"


@pytest.mark.parametrize("limit", [40, 41, 100, 4_000])
@pytest.mark.parametrize("length", [39, 40, 41, 1_000, 123_456])
def test_shortened_text_says_how_much_is_left_out(length, limit):
    short = shorten("a" * length, limit)
    assert min(length, limit) - 4 < len(short) <= limit
    if length > limit:
        left_out = int(short.partition("[")[2].partition(" ")[0].replace(",", ""))
        assert short.count("a") - "characters".count("a") + left_out == length


def test_a_choice_of_a_megabyte():
    with pytest.raises(InputError, match=r"format is 'xxx.*'; it must be one of 'a', 'b'") as caught:
        check_choice("format", "x" * 10**6, ["a", "b"])
    assert len(str(caught.value)) < 200
