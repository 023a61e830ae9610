"""Domain weights: the simplex, upstream's JSON, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi import DomainWeights, weights
from doremi.errors import InputError, MissingFileError

UPSTREAM = {"train_domain_weights": {"b": 3.0, "a": 1.0}, "eval_domain_weights": {"a": 0.5, "b": 0.5}}


def test_upstreams_unnormalised_json_in_any_order(tmp_path):
    path = tmp_path / "w.json"
    path.write_text(json.dumps(UPSTREAM))
    assert dict(DomainWeights.from_json(path)) == {"b": 0.75, "a": 0.25}


def test_round_trip_is_exact_and_has_upstreams_two_keys(tmp_path):
    original = DomainWeights({"Gutenberg (PG-19)": 1 / 3, "<script>": 0.2, "ü:": 1e-17})
    original.to_json(tmp_path / "w.json", provenance={"seed": 0})
    content = json.loads((tmp_path / "w.json").read_text())
    assert set(content) == {"train_domain_weights", "eval_domain_weights", "provenance"}
    assert content["train_domain_weights"] == dict(original)
    again = DomainWeights.from_json(tmp_path / "w.json")
    np.testing.assert_allclose(list(again.values()), list(original.values()), rtol=1e-15)


@settings(derandomize=True)
@given(st.dictionaries(st.text(min_size=1), st.floats(0, 1e9), min_size=1).filter(lambda d: sum(d.values()) > 1e-200))
def test_always_on_the_simplex(raw):
    assert abs(math.fsum(DomainWeights(raw).values()) - 1) < 1e-12


def test_arrays_follow_the_names_asked_for():
    found = DomainWeights({"a": 1, "b": 3})
    np.testing.assert_array_equal(found.as_array(["b", "new", "a"]), [0.75, 0.0, 0.25])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "no domain has a weight"),
        ({"a": -0.1, "b": 1}, r"weight of 'a' is -0.1; it must be finite and >= 0"),
        ({"a": math.nan}, "weight of 'a' is nan"),
        ({"a": math.inf}, "weight of 'a' is inf"),
        ({"a": 2e300, "b": 1e308}, r"weight of 'a' is 2e\+300; it must be finite"),  # their sum might not be
        ({"a": 10**400}, "weight of 'a' is 10000000000000000000; it must be finite"),
        ({"a": "0.5"}, "weight of 'a' is '0.5'; it must be a number"),
        ({"a": True}, "must be a number"),
        ({"a": 0, "b": 0.0}, "all weights are 0"),
    ],
)
def test_refused(raw, message):
    with pytest.raises(InputError, match=message):
        DomainWeights(raw)


def test_weights_of_evaluation_may_be_others(tmp_path):
    DomainWeights({"a": 1}).to_json(tmp_path / "w.json", eval_weights=DomainWeights({"a": 1, "b": 3}))
    assert json.loads((tmp_path / "w.json").read_text()) == {
        "train_domain_weights": {"a": 1.0},
        "eval_domain_weights": {"a": 0.25, "b": 0.75},
    }


def test_many_unequal_weights_are_summed_without_loss():
    found = DomainWeights({"large": 1e16} | {f"d{index}": 1.0 for index in range(1000)})
    assert found["large"] == 1e16 / (10**16 + 1000)


def test_unknown_domains_are_listed_with_what_exists():
    with pytest.raises(InputError, match=r"no such domain in the corpus: 'wiki'; it has 'books', 'web'"):
        DomainWeights({"wiki": 1, "web": 1}).restricted_to(["web", "books"])
    assert dict(DomainWeights({"web": 1, "books": 0}).restricted_to(["web", "books"])) == {"web": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b": }', r"w.json:2:7: not valid JSON"),
        ("[1]", "expected"),
        ('{"a": NaN}', "weight of 'a' is nan"),
        ("\xff", "not UTF-8"),
    ],
)
def test_unusable_files(tmp_path, text, message):
    (tmp_path / "w.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        DomainWeights.from_json(tmp_path / "w.json")
    with pytest.raises(MissingFileError, match="no such file"):
        DomainWeights.from_json(tmp_path / "missing.json")


def test_natural_and_uniform():
    assert dict(weights.natural({"a": 30, "b": 10})) == {"a": 0.75, "b": 0.25}
    assert dict(weights.uniform(["a", "b", "c", "d"])) == dict.fromkeys("abcd", 0.25)
