"""Weights by rule, against tables worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi.errors import InputError
from doremi.weights import published, rules

SIZES = {"web": 800, "code": 150, "tiny": 50}


def test_natural_times_epochs():
    """The Pile's way: 800, 150 · 2, 50 · 4 of 1,300."""
    found = rules.natural_with_epochs(SIZES, epochs={"code": 2, "tiny": 4})
    assert dict(found) == pytest.approx({"web": 8 / 13, "code": 3 / 13, "tiny": 2 / 13}, abs=1e-15)
    with pytest.raises(InputError, match="epochs of 'cdoe': no such domain; there are 'web', 'code', 'tiny'"):
        rules.natural_with_epochs(SIZES, epochs={"cdoe": 2})
    with pytest.raises(InputError, match="epochs of 'code' are 0"):
        rules.natural_with_epochs(SIZES, epochs={"code": 0})
    for wrong in (math.inf, math.nan, "2", True):
        with pytest.raises(InputError, match=f"epochs of 'code' are {wrong!r}; they must be a number above 0"):
            rules.natural_with_epochs(SIZES, epochs={"code": wrong})


def test_temperature():
    """Sizes 16, 4, 1 at τ = 2 give 4, 2, 1 of 7; τ = 1 is natural, τ = 0.5 squares."""
    sizes = {"a": 16, "b": 4, "c": 1}
    assert dict(rules.temperature(sizes, temperature=2)) == pytest.approx({"a": 4 / 7, "b": 2 / 7, "c": 1 / 7})
    assert dict(rules.temperature(sizes, temperature=1)) == pytest.approx({"a": 16 / 21, "b": 4 / 21, "c": 1 / 21})
    sharp = {"a": 256 / 273, "b": 16 / 273, "c": 1 / 273}
    assert dict(rules.temperature(sizes, temperature=0.5)) == pytest.approx(sharp)
    assert set(rules.temperature(sizes, temperature=math.inf).values()) == {1 / 3}
    assert dict(rules.temperature({"a": 1, "empty": 0}, temperature=math.inf)) == {"a": 1.0, "empty": 0.0}
    huge = {"a": 10**12, "b": 10**10}  # τ = 0.02: to the power of 50, beyond any float
    assert dict(rules.temperature(huge, temperature=0.02)) == pytest.approx({"a": 1, "b": 1e-100})
    with pytest.raises(InputError, match="all weights are 0"):
        rules.temperature({"a": 0, "b": 0}, temperature=2)
    with pytest.raises(InputError, match="temperature is 0; it must be above 0"):
        rules.temperature(sizes, temperature=0)


@pytest.mark.parametrize(
    ("budget", "max_epochs", "given_tokens"),
    [
        (90, 4, {"web": 30, "code": 30, "tiny": 30}),  # nobody reaches a cap: uniform
        (900, 4, {"web": 350, "code": 350, "tiny": 200}),  # tiny: 4 epochs; the rest is shared
        (1800, 2, {"web": 1400, "code": 300, "tiny": 100}),  # tiny 100, code 300, what is left to web
        (9000, 2, {"web": 1600, "code": 300, "tiny": 100}),  # all capped: natural
    ],
)
def test_unimax(budget, max_epochs, given_tokens):
    found = rules.unimax(SIZES, budget=budget, max_epochs=max_epochs)
    total = sum(given_tokens.values())
    assert dict(found) == pytest.approx({name: tokens / total for name, tokens in given_tokens.items()}, abs=1e-15)
    assert found.names == tuple(SIZES)


def test_unimax_refuses():
    with pytest.raises(InputError, match="the budget is 0 tokens"):
        rules.unimax(SIZES, budget=0, max_epochs=4)
    with pytest.raises(InputError, match="the cap nan epochs"):
        rules.unimax(SIZES, budget=100, max_epochs=math.nan)


@settings(derandomize=True)
@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 10**12), min_size=1, max_size=50),
    st.floats(1, 1e15),
    st.floats(0.1, 20),
)
def test_every_rule_sums_to_one_and_unimax_keeps_its_cap(sizes, budget, max_epochs):
    found = rules.unimax(sizes, budget=budget, max_epochs=max_epochs)
    for weights in (found, rules.temperature(sizes, temperature=max_epochs)):
        assert abs(math.fsum(weights.values()) - 1) < 1e-12
    used = min(budget, max_epochs * sum(sizes.values()))
    for name, size in sizes.items():
        assert found[name] * used <= size * max_epochs * (1 + 1e-9)
    below_cap = [found[name] for name, size in sizes.items() if found[name] * used < size * max_epochs * (1 - 1e-9)]
    assert max(below_cap, default=0) == pytest.approx(min(below_cap, default=0))


def test_the_reference_without_floor_domains():
    reference = {"web": 0.5, "code": 0.3, "junk": 0.2}
    answer = {"web": 0.75, "code": 0.2301, "junk": 0.0199}
    assert rules.floor_domains(reference, answer) == ("junk",)
    assert dict(rules.reference_without_floor(reference, answer)) == pytest.approx({"web": 5 / 8, "code": 3 / 8})
    assert rules.floor_domains(reference, {"web": 0.5, "code": 0.479, "junk": 0.021}) == ()
    assert rules.floor_domains(reference, {"web": 0.5, "code": 0.5}) == ("junk",)


# ---- published ----


def test_published_weights_are_those_of_the_papers_table_1():
    found = published.load("paper-280m")
    assert found.source == "arXiv 2305.10429, Table 1"
    assert len(found.weights) == 22
    assert found.weights["Pile-CC"] == pytest.approx(0.6057, abs=5e-4)  # the table is rounded, its sum is not quite 1
    assert found.weights["Wikipedia (en)"] == pytest.approx(0.0699, abs=1e-4)


def test_every_published_entry_is_usable_and_says_what_it_is():
    assert "pile-epochs" not in published.names()
    assert len(published.names()) == 7
    for name in published.names():
        found = published.load(name)
        assert abs(math.fsum(found.weights.values()) - 1) < 1e-12
        assert found.tokenizer
        assert found.counts
        assert found.source
    assert published.pile_epochs()["Wikipedia (en)"] == 3.0


def test_an_unknown_name_lists_those_that_exist():
    with pytest.raises(InputError, match="no published weights 'paper-280M'; there are pile-baseline-256k, paper-280m"):
        published.load("paper-280M")
