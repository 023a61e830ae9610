"""Which models a recipe trains, and the FLOPs of each stage counted by hand."""

from __future__ import annotations

import pytest

from doremi import DomainWeights
from doremi.errors import InputError
from tests.planning.recipes import BATCH, LENGTH, ROWS, STEPS, forward, make, planned

ROWS_OF = {"small": 100, "large": 3000}


class Store:
    """Two domains, of 100 and 3,000 rows and a tail."""

    names = ("small", "large")
    path, packing = "x", "pack"

    def num_tokens(self, name):
        return ROWS_OF[name] * LENGTH + 3

    def num_sequences(self, name, sequence_length):
        return self.num_tokens(name) // sequence_length


def test_plain():
    found = planned(make())
    assert {name: stage.num_models for name, stage in found.items()} == {
        "reference": 1, "proxy": 1, "baseline": 1, "main": 1}  # fmt: skip
    assert found["reference"].flops == ROWS * 3 * forward("reference")
    assert found["proxy"].flops == ROWS * (3 * forward("proxy") + forward("reference"))
    assert found["main"].flops == found["baseline"].flops == ROWS * 3 * forward("main")
    assert found["main"].num_tokens == STEPS * BATCH * LENGTH
    assert found["main"].epochs is None


def test_rounds_and_seeds():
    recipe = make(reweighting={"rounds": 3, "seeds": 2}, weights={"seeds": 4, "baselines": ["uniform"]})
    found = planned(recipe)
    assert {name: stage.num_models for name, stage in found.items()} == {
        "reference": 3, "proxy": 6, "baseline": 4, "main": 4, "uniform": 4}  # fmt: skip
    assert found["reference"].flops == 3 * ROWS * 3 * forward("reference")
    assert found["uniform"].flops == 4 * ROWS * 3 * forward("main")
    assert planned(make(reweighting={"rounds": "auto", "max_rounds": 7}))["proxy"].num_models == 7


def test_weights_that_differ_by_rounding_are_trained_once(tmp_path):
    half = {"small": 0.5 + 1e-13, "large": 0.5 - 1e-13}
    DomainWeights(half).to_json(tmp_path / "half.json")
    weights = {"reference": "uniform", "baselines": [str(tmp_path / "half.json")]}
    assert set(planned(make(weights=weights), store=Store())) == {"reference", "proxy", "baseline", "main"}


def test_what_is_trained_once_is_counted_once():
    shared = planned(make(models={"main": "tiny"}, weights={"seeds": 3}))
    assert (shared["reference"].num_models, shared["baseline"].num_models, shared["main"].num_models) == (1, 2, 3)
    same = planned(
        make(weights={"reference": "uniform", "baselines": ["uniform", "unimax", "temperature(2)"]}), store=Store()
    )
    assert set(same) == {"reference", "proxy", "baseline", "main", "temperature(2)"}  # unimax is uniform here
    answer = DomainWeights({"small": 0.5, "large": 0.5})
    assert "uniform" not in planned(make(weights={"baselines": ["uniform"]}), store=Store(), answer=answer)
    assert "reference" not in planned(make(models={"reference": {"path": "m", "init": "trained"}}))


def test_measuring_before_the_first_backward_pass():
    """With several micro-batches a process, the exact weights take one more forward pass; more devices need fewer."""
    exact = make(training={"micro_batch_size": 2})
    assert planned(exact)["proxy"].flops == ROWS * (4 * forward("proxy") + forward("reference"))
    assert planned(exact, num_devices=4)["proxy"].flops == ROWS * (3 * forward("proxy") + forward("reference"))
    delayed = make(training={"micro_batch_size": 2}, reweighting={"weights_update": "delayed"})
    assert planned(delayed)["proxy"].flops == ROWS * (3 * forward("proxy") + forward("reference"))
    with pytest.raises(InputError, match="not a multiple of the 3 processes"):
        planned(exact, num_devices=3)


def test_the_references_losses():
    no_reference = planned(make(reweighting={"objective": "hardest"}))["proxy"]
    assert no_reference.flops == ROWS * 3 * forward("proxy")
    cached = make(reweighting={"reference_cache": True, "seeds": 2, "rounds": 2})
    unknown = planned(cached)["proxy"]  # at most every row of every seed
    assert unknown.flops == 4 * ROWS * (3 * forward("proxy") + forward("reference"))
    # a proxy draws 400 rows of each domain: all 100 of the small one, and two seeds 3000 (1 - (1 - 400 / 3000)^2)
    distinct = 100 + 3000 * (1 - (1 - 400 / 3000) ** 2)
    known = planned(cached, store=Store())["proxy"]
    assert known.flops == pytest.approx(4 * ROWS * 3 * forward("proxy") + 2 * distinct * forward("reference"))


def test_epochs():
    answer = DomainWeights({"small": 0.25, "large": 0.75})
    found = planned(make(weights={"baselines": ["uniform"]}), store=Store(), answer=answer)
    natural = {name: ROWS * Store().num_tokens(name) / 31006 for name in Store.names}
    assert found["reference"].epochs == pytest.approx({n: natural[n] / ROWS_OF[n] for n in Store.names})
    assert found["proxy"].epochs == found["uniform"].epochs == {"small": 4.0, "large": 400 / 3000}
    assert found["main"].epochs == {"small": 2.0, "large": 0.2}
    assert planned(make(), store=Store())["main"].epochs is None
    limited = make(training={"max_epochs": 1, "on_max_epochs": "renormalise"})
    assert planned(limited, store=Store())["proxy"].epochs == pytest.approx({"small": 1.0, "large": 700 / 3000})


def test_domains_without_a_reference_weight_are_no_part_of_it():
    found = planned(make(weights={"reference": {"large": 1.0}, "baselines": []}), store=Store())
    assert found["proxy"].epochs == {"large": ROWS / 3000}


def test_what_needs_the_answer_is_not_known_before():
    recipe = make(weights={"baselines": ["reference_without_floor"]})
    assert planned(recipe, store=Store())["reference_without_floor"].epochs is None
    found = planned(recipe, store=Store(), answer=DomainWeights({"small": 0.0001, "large": 0.9999}))
    assert found["reference_without_floor"].epochs == {"large": ROWS / 3000}
