"""Weights as recipes name them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doremi import DomainWeights
from doremi.errors import InputError, MissingFileError
from doremi.weights import published, specs
from doremi.weights.specs import Setting


class Store:
    """Sizes by hand: packed and padded counts differ."""

    path = "store"
    names = ("books", "code", "web")
    tokens = {"books": 100, "code": 300, "web": 600}  # noqa: RUF012
    counts = {"pack": {"books": 3, "code": 9, "web": 18}, "pad": {"books": 10, "code": 10, "web": 30}}  # noqa: RUF012

    def __init__(self, packing="pack"):
        self.packing = packing

    def with_packing(self, packing):
        return Store(packing)

    def num_tokens(self, name):
        return self.tokens[name]

    def num_sequences(self, name, length):
        assert length == 32
        return self.counts[self.packing][name]


def setting(**changes):
    return Setting(Store(), **{"sequence_length": 32, "num_tokens": 1200, "max_epochs": 2.0, "epochs": {}} | changes)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("natural", {"books": 0.1, "code": 0.3, "web": 0.6}),
        ("natural(packed)", {"books": 0.1, "code": 0.3, "web": 0.6}),
        ("natural(padded)", {"books": 0.2, "code": 0.2, "web": 0.6}),
        ("uniform", {"books": 1 / 3, "code": 1 / 3, "web": 1 / 3}),
        ("temperature(1)", {"books": 0.1, "code": 0.3, "web": 0.6}),
        ("unimax", {"books": 200 / 1200, "code": 500 / 1200, "web": 500 / 1200}),
        ("unimax(1)", {"books": 0.1, "code": 0.3, "web": 0.6}),
        ({"web": 1, "books": 3}, {"books": 0.75, "web": 0.25}),
    ],
)
def test_resolve(spec, expected):
    found = specs.resolve(spec, setting(), Store.names)
    assert dict(found) == pytest.approx(expected, abs=1e-15)
    assert list(found) == list(expected)  # the corpus' order


def test_epochs_multiply_natural_weights():
    found = specs.resolve("natural", setting(epochs={"books": 3.0}), Store.names)
    assert dict(found) == pytest.approx({"books": 0.25, "code": 0.25, "web": 0.5})


def test_files_and_published_names(tmp_path):
    DomainWeights({"web": 0.5, "code": 0.5, "books": 0}).to_json(tmp_path / "mine.json")
    assert dict(specs.resolve(str(tmp_path / "mine.json"), setting(), Store.names)) == {"code": 0.5, "web": 0.5}
    expected = published.load("redpajama-baseline").weights
    store = Store()
    store.names = tuple(sorted(expected))
    found = specs.resolve("redpajama-baseline", replace(setting(), store=store), store.names)
    assert dict(found) == pytest.approx(dict(expected))
    assert list(found) == sorted(expected)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("natural", "natural"), ("temperature(0.7)", "temperature(0.7)"), ("paper-280m", "paper-280m"),
        ("some/where/mine.v2.json", "mine.v2"), ({"a": 1}, "reference"),
    ],
)  # fmt: skip
def test_labels(spec, name):
    assert specs.label(spec) == name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("natural(bytes)", r"natural\(bytes\); it counts tokens, or sequences"),
        ("uniform(2)", "uniform takes no argument, got '2'"),
        ("unimax(x)", r"unimax takes a number, such as unimax\(2\), got 'x'"),
        ("reference_without_floor", "neither a file nor one of natural"),
        ("temperature", r"temperature takes a number, such as temperature\(2\), got None"),
        ("paper-280m", "no such domain in the corpus"),
        ({"wiki": 1}, "no such domain in the corpus: 'wiki'"),
    ],
)
def test_refused(spec, message):
    with pytest.raises(InputError, match=message):
        specs.resolve(spec, setting(), Store.names)


def test_no_domain_has_a_sequence():
    none = {"pack": dict.fromkeys(Store.names, 0), "pad": dict.fromkeys(Store.names, 0)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "counts", none)
        with pytest.raises(InputError, match=r"natural\(padded\): no domain has one sequence of 32 tokens"):
            specs.resolve("natural(padded)", setting(), Store.names)


def test_a_domain_without_tokens_is_left_out(monkeypatch):
    monkeypatch.setattr(Store, "tokens", {"books": 0, "code": 300, "web": 300})
    for rule in ("natural", "temperature(2)", "unimax"):
        assert dict(specs.resolve(rule, setting(), Store.names)) == {"code": 0.5, "web": 0.5}


def test_a_file_may_be_named_after_a_rule(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    DomainWeights({"web": 1, "code": 3}).to_json("natural.json")
    assert dict(specs.resolve("natural.json", setting(), Store.names)) == {"code": 0.75, "web": 0.25}


@pytest.mark.parametrize("rule", ["natural", "natural(padded)", "uniform", "temperature(2)", "unimax"])
def test_rules_give_a_domain_left_out_nothing(rule):
    assert set(specs.resolve(rule, setting(), ("web", "books"))) == {"web", "books"}


def test_what_is_no_rule_must_be_a_file():
    with pytest.raises(MissingFileError, match="'tempreature' is neither a file nor one of natural, uniform"):
        specs.resolve("tempreature", setting(), Store.names)


def test_folders_that_differ_have_labels_that_differ(tmp_path, monkeypatch):
    for name in ("v1.2", "v1.3"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "v1.2")
    labels = [specs.label(spec) for spec in (str(tmp_path / "v1.2"), "../v1.3", ".", "..")]
    assert labels == ["v1.2", "v1.3", "v1.2", tmp_path.name]
