"""Which models a recipe trains, and the FLOPs of each stage counted by hand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from doremi import DomainWeights
from doremi.errors import InputError
from doremi.methods import named
from doremi.methods.protocol import Answer, Run
from doremi.planning import disk, stages
from doremi.weights import uniform
from tests.planning.recipes import BATCH, LENGTH, ROWS, SIZES, STEPS, forward, inputs, make, planned

ROWS_OF = {"small": 100, "large": 3000}


class Store:
    """Two domains, of 100 and 3,000 rows and a tail."""

    names = ("small", "large")
    path, packing = "x", "pack"

    sets = ()

    def num_tokens(self, name, split="train"):
        return ROWS_OF[name] * LENGTH + 3

    def num_bytes(self, name, split="train"):
        return 4 * self.num_tokens(name)

    def num_sequences(self, name, sequence_length):
        return self.num_tokens(name) // sequence_length


def models(found):
    return {name: stage.num_models for name, stage in found.items()}


def test_plain():
    found = planned(make())
    assert models(found) == {"reference": 1, "proxy": 1, "natural": 1, "doremi": 1}
    assert [stage.part for stage in found.values()] == ["search"] * 2 + ["verification"] * 2
    assert found["reference"].flops == ROWS * 3 * forward("reference")
    assert found["proxy"].flops == ROWS * (3 * forward("proxy") + forward("reference"))
    assert found["doremi"].flops == found["natural"].flops == ROWS * 3 * forward("main")
    assert found["doremi"].num_tokens == STEPS * BATCH * LENGTH
    assert found["doremi"].epochs is None


def test_rounds_and_seeds():
    recipe = make(doremi={"rounds": 3, "seeds": 2}, verify={"seeds": 4}, further=["uniform"])
    found = planned(recipe)
    assert models(found) == {"reference": 3, "proxy": 6, "natural": 4, "doremi": 4, "uniform": 4}
    assert found["reference"].flops == 3 * ROWS * 3 * forward("reference")
    assert found["uniform"].flops == 4 * ROWS * 3 * forward("main")
    search = sum(stage.flops for stage in found.values() if stage.part == "search")
    assert stages.total_flops(found.values(), "search") == search
    assert stages.total_flops(found.values(), "verification") == 12 * ROWS * 3 * forward("main")


@pytest.mark.parametrize(
    ("options", "is_bound"),
    [({"rounds": "auto", "max_rounds": 7}, True), ({"rounds": 7}, False), ({"seeds": 7}, False)],
)
def test_a_search_that_may_end_sooner_is_planned_for_all_of_it(options, is_bound):
    found = stages.plan(inputs(make(doremi=options)))
    assert {stage.name: stage.num_models for stage in found.stages}["proxy"] == 7
    assert found.is_bound == is_bound


def test_once_a_search_is_over_it_is_known_how_long_it_was():
    answer = {"domain 1": 0.5, "domain 2": 0.5}
    found = stages.plan(inputs(make(doremi={"rounds": "auto", "max_rounds": 7}), answer=answer))
    assert {stage.name: stage.num_models for stage in found.stages}["reference"] == 2
    assert not found.is_bound


def test_weights_that_differ_by_rounding_are_trained_once(tmp_path):
    half = {"small": 0.5 + 1e-13, "large": 0.5 - 1e-13}
    DomainWeights(half).to_json(tmp_path / "half.json")
    recipe = make(prior="uniform", methods=["uniform", "doremi", {"file": str(tmp_path / "half.json")}])
    found = planned(recipe, store=Store())
    assert set(found) == {"reference", "proxy", "uniform", "doremi"}
    assert found["uniform"].also == ("half",)


def test_what_is_trained_once_is_counted_once():
    shared = planned(make(models={"main": "tiny"}, verify={"seeds": 3}))
    assert models(shared) == {"reference": 1, "proxy": 1, "natural": 2, "doremi": 3}
    assert (shared["reference"].also, shared["natural"].also) == (("natural",), ())
    assert (shared["reference"].num_compared, shared["natural"].num_compared) == (1, 2)
    recipe = make(prior="uniform", methods=["doremi", "uniform", "unimax", "temperature(2)"])
    same = planned(recipe, store=Store())  # unimax is uniform here
    assert set(same) == {"reference", "proxy", "doremi", "uniform", "temperature(2)"}
    assert "unimax" in planned(recipe)  # nobody knows it before the corpus is prepared
    answer = {"small": 0.5, "large": 0.5}
    found = planned(make(further=["uniform"]), store=Store(), answer=answer)
    assert "uniform" not in found
    assert found["doremi"].also == ("uniform",)
    assert "reference" not in planned(make(models={"reference": {"path": "m", "init": "trained"}}))


def test_what_two_methods_ask_for_is_counted_once():
    two = {"doremi": {"seeds": 3}, "label": "three"}
    found = planned(make(further=[two, "reference_without_floor"]))
    assert models(found) == {
        "reference": 1, "proxy": 3, "natural": 1, "doremi": 1, "three": 1, "reference_without_floor": 1}  # fmt: skip
    other = {"doremi": {"step_size": 0.5}, "label": "slow"}
    assert models(planned(make(further=[other])))["proxy"] == 2


def test_rules_alone_need_no_search():
    found = planned(make(methods=["natural", "uniform"], verify={"size": "proxy", "seeds": 2}))
    assert models(found) == {"natural": 2, "uniform": 2}
    assert found["uniform"].flops == 2 * ROWS * 3 * forward("proxy")


@dataclass(frozen=True)
class Swarm:
    """Proxies without a policy, and one of them longer."""

    sizes: tuple[float, ...] = (0.25, 0.75)
    extra: list = field(default_factory=list, compare=False)
    keep: bool = True

    def ask(self, bench, done):
        if done:
            return []
        weights = [DomainWeights(dict(zip(bench.names, (size, 1 - size), strict=True))) for size in self.sizes]
        swarm = [
            Run("proxy", bench.seed, each, keep=self.keep, label=f"swarm, {place}")
            for place, each in enumerate(weights)
        ]
        return [*swarm, Run("proxy", bench.seed, weights[0], steps=2 * STEPS, label="long")]

    def answer(self, bench, done):
        return Answer(uniform(bench.names))


def test_any_method(monkeypatch):
    monkeypatch.setattr(named.Own, "method", Swarm())
    found = planned(make(methods=["natural", "tests:Swarm"]))
    assert models(found) == {"swarm": 2, "long": 1, "natural": 1, "Swarm": 1}
    assert found["swarm"].flops == found["long"].flops == 2 * ROWS * 3 * forward("proxy")
    assert found["long"].num_tokens == 2 * STEPS * BATCH * LENGTH


def test_models_that_are_not_kept_take_no_disk_and_are_others(monkeypatch):
    recipe, sizes = (
        make(methods=["natural", "tests:Swarm"]),
        {name: size.num_parameters for name, size in SIZES.items()},
    )
    needed = {}
    for keep in (True, False):
        monkeypatch.setattr(named.Own, "method", Swarm(keep=keep))
        found = planned(recipe)
        assert models(found) == {"swarm": 2, "long": 1, "natural": 1, "Swarm": 1}
        needed[keep] = disk.estimate(recipe, [*found.values()], [], corpus=None)
    assert needed[True].models == 4 * (3 * sizes["proxy"] + 2 * sizes["main"])
    assert needed[False].models == needed[True].models - 4 * 2 * sizes["proxy"]
    assert needed[False].checkpoints < needed[True].checkpoints
    run = Run("proxy", 0, uniform(("a", "b")))
    key = inputs(recipe).key
    assert key(run) != key(replace(run, keep=False))


def test_measuring_before_the_first_backward_pass():
    """With several micro-batches a process, the exact weights take one more forward pass; more devices need fewer."""
    exact = make(training={"micro_batch_size": 2})
    assert planned(exact)["proxy"].flops == ROWS * (4 * forward("proxy") + forward("reference"))
    assert planned(exact, num_devices=4)["proxy"].flops == ROWS * (3 * forward("proxy") + forward("reference"))
    delayed = make(training={"micro_batch_size": 2}, doremi={"weights_update": "delayed"})
    assert planned(delayed)["proxy"].flops == ROWS * (3 * forward("proxy") + forward("reference"))
    with pytest.raises(InputError, match="not a multiple of the 3 processes"):
        planned(exact, num_devices=3)


def test_the_references_losses():
    no_reference = planned(make(doremi={"objective": "hardest"}))["proxy"]
    assert no_reference.flops == ROWS * 3 * forward("proxy")
    cached = make(doremi={"reference_cache": True, "seeds": 2, "rounds": 2})
    unknown = planned(cached)["proxy"]  # at most every row of every seed
    assert unknown.flops == 4 * ROWS * (3 * forward("proxy") + forward("reference"))
    # a proxy draws 400 rows of each domain: all 100 of the small one, and two seeds 3000 (1 - (1 - 400 / 3000)^2)
    distinct = 100 + 3000 * (1 - (1 - 400 / 3000) ** 2)
    known = planned(cached, store=Store())["proxy"]
    assert known.flops == pytest.approx(4 * ROWS * 3 * forward("proxy") + 2 * distinct * forward("reference"))
    losses = stages.plan(inputs(cached, store=Store())).losses
    assert [each.num_rows for each in losses] == pytest.approx([distinct] * 2)


def test_methods_share_the_losses_of_one_reference():
    """Of the same seed they draw the same rows, which are scored once."""
    slow = {"doremi": {"reference_cache": True, "step_size": 0.5}, "label": "slow"}
    recipe = make(doremi={"reference_cache": True}, further=[slow])
    found = planned(recipe, store=Store())["proxy"]
    assert found.num_models == 2
    assert found.flops == pytest.approx(2 * ROWS * 3 * forward("proxy") + (100 + 400) * forward("reference"))


def test_epochs():
    answer = {"small": 0.25, "large": 0.75}
    found = planned(make(further=["uniform"]), store=Store(), answer=answer)
    natural = {name: ROWS * Store().num_tokens(name) / 31006 for name in Store.names}
    assert found["reference"].epochs == pytest.approx({n: natural[n] / ROWS_OF[n] for n in Store.names})
    assert found["proxy"].epochs == found["uniform"].epochs == {"small": 4.0, "large": 400 / 3000}
    assert found["doremi"].epochs == {"small": 2.0, "large": 0.2}
    assert planned(make(), store=Store())["doremi"].epochs is None
    limited = make(training={"max_epochs": 1, "on_max_epochs": "renormalise"})
    assert planned(limited, store=Store())["proxy"].epochs == pytest.approx({"small": 1.0, "large": 700 / 3000})


def test_domains_without_a_prior_weight_are_no_part_of_it():
    found = planned(make(prior={"large": 1.0}), store=Store())
    assert found["proxy"].epochs == {"large": ROWS / 3000}


def test_what_needs_the_answer_is_not_known_before():
    recipe = make(further=["reference_without_floor"])
    assert planned(recipe, store=Store())["reference_without_floor"].epochs is None
    found = planned(recipe, store=Store(), answer=DomainWeights({"small": 0.0001, "large": 0.9999}))
    assert found["reference_without_floor"].epochs == {"large": ROWS / 3000}
