"""Which runs an experiment has, on what weights, with which seeds, in which folders."""

from __future__ import annotations

import numpy as np
import pytest

from doremi import weights
from doremi.errors import InputError
from doremi.experiment import planned_runs
from tests import made_up

ANSWER = {"a": 0.5, "b": 0.495, "c": 0.005}  # c is at the floor
SMALL = {"reference": {"preset": "tiny", "overrides": {"hidden_size": 16}}, "proxy": "tiny", "main": "tiny"}


def folders(experiment, runs):
    return {seed: str(run.folder.relative_to(experiment.directory.root)) for seed, run in runs.items()}


def compared(experiment):
    made_up.write_weights(experiment, ANSWER)
    return {item.name: item for item in planned_runs.comparisons(experiment)}


def test_the_reference_is_trained_on_the_weights_of_its_round(tmp_path):
    experiment = made_up.make(tmp_path)
    first = planned_runs.reference_run(experiment, 1, experiment.reference_weights)
    second = planned_runs.reference_run(experiment, 2, weights.DomainWeights(ANSWER))
    assert (first.name, second.name) == ("reference", "reference, round 2")
    assert folders(experiment, {1: first, 2: second}) == {1: "rounds/01/reference", 2: "rounds/02/reference"}
    assert first.sampling_weights == {"a": 0.6, "b": 0.3, "c": 0.1}
    assert second.sampling_weights == pytest.approx(ANSWER)
    assert (first.seed, first.reference, first.reweighting, first.adversary) == (7, None, None, None)


def test_a_proxy_for_each_seed_shares_the_reference_of_its_round(tmp_path):
    attention = {"reference": {"preset": "tiny", "attn_implementation": "eager"}}
    experiment = made_up.make(tmp_path, reweighting={"seeds": 2}, models=attention)
    found = planned_runs.proxy_runs(experiment, 2)
    assert [(run.name, run.seed) for run in found] == [("proxy, round 2", 7), ("proxy, round 2, seed 8", 8)]
    places = folders(experiment, {run.seed: run for run in found})
    assert places == {7: "rounds/02/proxy", 8: "rounds/02/proxy-seed-8"}
    for run in found:
        assert run.sampling_weights == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
        assert run.reference == experiment.directory.root / "rounds/02/reference"
        assert run.reference_losses == experiment.directory.root / "rounds/02/reference_losses"
        assert run.reference_attention == "eager"
        assert run.reweighting == experiment.recipe.reweighting
        assert run.adversary == experiment.adversary_options()


def test_each_model_has_its_own_settings(tmp_path):
    overrides = {"proxy": {"steps": 11}, "main": {"steps": 22}}
    experiment = made_up.make(tmp_path, models=SMALL, training={"steps": 33, "overrides": overrides})
    reference = planned_runs.reference_run(experiment, 1, experiment.reference_weights)
    assert (reference.training.steps, reference.model.overrides) == (33, {"hidden_size": 16})
    (proxy,) = planned_runs.proxy_runs(experiment, 1)
    assert (proxy.training.steps, proxy.model.overrides) == (11, {})
    assert compared(experiment)["main"].runs[7].training.steps == 22


def test_runs_are_scored_as_the_recipe_says_for_training(tmp_path):
    caps = {"max_tokens_per_domain": 50, "max_tokens_during_training": 5, "tasks": ["paper"]}
    run = planned_runs.reference_run(made_up.make(tmp_path, evaluation=caps), 1, weights.DomainWeights(ANSWER))
    assert (run.evaluation.max_tokens_per_domain, run.evaluation.tasks) == (5, [])


def test_every_weight_vector_has_the_same_seeds(tmp_path):
    experiment = made_up.make(tmp_path, models=SMALL)
    found = compared(experiment)
    assert list(found) == ["baseline", "main", "uniform"]
    assert folders(experiment, found["baseline"].runs) == {seed: f"runs/natural/seed-{seed}" for seed in (7, 8, 9)}
    assert folders(experiment, found["main"].runs) == {seed: f"runs/doremi/seed-{seed}" for seed in (7, 8, 9)}
    assert [run.name for run in found["main"].runs.values()] == ["main", "main, seed 8", "main, seed 9"]
    assert [run.seed for run in found["main"].runs.values()] == [7, 8, 9]
    assert found["baseline"].sampling_weights == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1})
    assert found["main"].sampling_weights == pytest.approx(ANSWER)
    assert found["uniform"].sampling_weights == pytest.approx(dict.fromkeys("abc", 1 / 3))
    assert [item.weights_name for item in found.values()] == ["natural", "doremi", "uniform"]


def test_a_reference_like_the_main_model_is_the_first_seed_of_the_baseline(tmp_path):
    experiment = made_up.make(tmp_path)
    baseline = folders(experiment, compared(experiment)["baseline"].runs)
    assert baseline == {7: "rounds/01/reference", 8: "runs/natural/seed-8", 9: "runs/natural/seed-9"}


@pytest.mark.parametrize(
    "sections", [{"models": SMALL}, {"training": {"overrides": {"reference": {"learning_rate": 1e-4}}}}]
)
def test_another_size_or_setting_is_another_model(tmp_path, sections):
    experiment = made_up.make(tmp_path, **sections)
    assert not planned_runs.trains_alike(experiment.recipe, "reference", "main")
    assert planned_runs.trains_alike(experiment.recipe, "proxy", "main")
    assert folders(experiment, compared(experiment)["baseline"].runs)[7] == "runs/natural/seed-7"


def test_the_control_is_known_with_the_answer(tmp_path):
    experiment = made_up.make(tmp_path, weights={"baselines": ["reference_without_floor"]})
    found = compared(experiment)["reference_without_floor"]
    assert found.sampling_weights == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    assert found.runs[7].names == ("a", "b", "c")  # all are scored


def test_baselines_that_are_the_reference_weights_are_left_out(tmp_path):
    experiment = made_up.make(tmp_path, weights={"baselines": ["natural", "uniform", "temperature(1)"]})
    made_up.write_weights(experiment, ANSWER)
    found = planned_runs.comparisons(experiment)
    assert [item.name for item in found] == ["baseline", "main", "uniform"]
    assert planned_runs.same_as_reference(experiment, found) == ["natural", "temperature(1)"]


def test_rounding_makes_no_new_weights(tmp_path, monkeypatch):
    experiment = made_up.make(tmp_path, weights={"baselines": ["uniform", "unimax", "temperature(2)"]})
    names = experiment.names
    almost = {"uniform": np.full(3, 1.0), "unimax": [1 + 1e-13, 1, 1], "temperature(2)": [1 + 1e-9, 1, 1]}
    monkeypatch.setattr(
        type(experiment),
        "resolve",
        lambda self, spec, answer: weights.DomainWeights(dict(zip(names, almost[spec], strict=True))),
    )
    found = compared(experiment)
    assert found["unimax"].runs == found["uniform"].runs
    assert (found["unimax"].name, found["unimax"].weights_name) == ("unimax", "unimax")
    assert found["temperature(2)"].runs != found["uniform"].runs


def test_weights_over_other_domains_are_others(tmp_path):
    zero = {"a": 0.5, "b": 0.5}
    experiment = made_up.make(tmp_path, weights={"reference": zero, "baselines": ["uniform"]})
    made_up.write_weights(experiment, {"a": 0.9, "b": 0.1})
    assert [item.name for item in planned_runs.comparisons(experiment)] == ["baseline", "main"]  # of two domains


def test_pairs():
    assert planned_runs.pairs(["baseline", "main", "x", "y"]) == [
        ("main", "baseline"), ("x", "baseline"), ("y", "baseline"), ("main", "x"), ("main", "y")
    ]  # fmt: skip


def test_runs_by_name(tmp_path):
    experiment = made_up.make(tmp_path, reweighting={"seeds": 2}, weights={"baselines": ["uniform", "natural"]})
    assert [run.name for run in planned_runs.find_runs(experiment, "reference")] == ["reference"]
    assert [run.name for run in planned_runs.find_runs(experiment, "proxy")] == ["proxy", "proxy, seed 8"]
    assert [run.name for run in planned_runs.find_runs(experiment, "baseline")] == [
        "baseline", "baseline, seed 8", "baseline, seed 9"
    ]  # fmt: skip
    for name in ("main", "uniform", "natural"):
        with pytest.raises(InputError, match=r"weights.json: not there yet; run `doremi train --run proxy` first"):
            planned_runs.find_runs(experiment, name)
    made_up.write_weights(experiment, ANSWER)
    assert [run.name for run in planned_runs.find_runs(experiment, "main")] == ["main", "main, seed 8", "main, seed 9"]
    assert planned_runs.find_runs(experiment, "uniform")[2].folder.parts[-2:] == ("uniform", "seed-9")
    assert planned_runs.find_runs(experiment, "natural")[0].folder.parts[-2:] == ("01", "reference")  # the baseline
    with pytest.raises(InputError, match="no run 'mian'; there are reference, proxy, baseline, main, uniform, natural"):
        planned_runs.find_runs(experiment, "mian")


def test_a_trained_reference_is_not_trained(tmp_path):
    experiment = made_up.make(tmp_path, models={"reference": {"path": "some/model", "init": "trained"}})
    with pytest.raises(InputError, match=r"is a trained model \(init: trained\); there is no reference to train"):
        planned_runs.find_runs(experiment, "reference")
