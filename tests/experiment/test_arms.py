"""What is compared: an arm for each answer, with the same seeds; those that agree share their models."""

from __future__ import annotations

import numpy as np
import pytest

from doremi.errors import InputError
from doremi.experiment import ledger
from doremi.experiment.arms import arms, find_runs
from doremi.experiment.search import known
from doremi.methods.fixed import Fixed
from doremi.methods.group_dro import GroupDRO
from doremi.methods.protocol import Answer
from doremi.weights import DomainWeights, specs
from tests import made_up

ANSWER = {"a": 0.5, "b": 0.495, "c": 0.005}  # c is at the floor
SMALL = {"reference": {"preset": "tiny", "overrides": {"hidden_size": 16}}, "proxy": "tiny", "main": "tiny"}


def answers(experiment, answer=ANSWER):
    found = made_up.finish_search(experiment, answer)
    return {label: each.answer for label, each in found.items()}


def compared(experiment, answer=ANSWER):
    return {arm.label: arm for arm in arms(experiment, answers(experiment, answer))}


def labels(arm):
    """Of the folders of its models, by seed."""
    return {seed: run.folder.name[:-13] for seed, run in arm.runs.items()}


def test_every_arm_has_the_same_seeds(tmp_path):
    found = compared(made_up.make(tmp_path, models=SMALL))
    assert list(found) == ["natural", "doremi", "uniform"]
    assert labels(found["natural"]) == {7: "natural", 8: "natural-seed-8", 9: "natural-seed-9"}
    assert labels(found["doremi"]) == {7: "doremi", 8: "doremi-seed-8", 9: "doremi-seed-9"}
    assert [run.name for run in found["doremi"].runs.values()] == ["doremi", "doremi, seed 8", "doremi, seed 9"]
    assert [run.seed for run in found["doremi"].runs.values()] == [7, 8, 9]
    assert found["natural"].weights == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1})
    assert found["doremi"].weights == pytest.approx(ANSWER)
    assert found["uniform"].weights == pytest.approx(dict.fromkeys("abc", 1 / 3))
    for arm in found.values():
        assert all(run.sampling_weights == arm.weights for run in arm.runs.values())
        assert {run.training.steps for run in arm.runs.values()} == {30}
    assert [(arm.is_rule, arm.same_as) for arm in found.values()] == [(True, None), (False, None), (True, None)]


def test_a_reference_like_the_main_model_is_the_first_seed_of_natural(tmp_path):
    natural = compared(made_up.make(tmp_path))["natural"]
    assert labels(natural) == {7: "reference", 8: "natural-seed-8", 9: "natural-seed-9"}


@pytest.mark.parametrize(
    "sections", [{"models": SMALL}, {"training": {"overrides": {"reference": {"learning_rate": 1e-4}}}}]
)
def test_another_size_or_setting_is_another_model(tmp_path, sections):
    experiment = made_up.make(tmp_path, **sections)
    assert labels(compared(experiment)["natural"])[7] == "natural"


@pytest.mark.parametrize("size", ["proxy", "reference"])
def test_answers_are_verified_at_the_size_that_the_recipe_says(tmp_path, size):
    verify = {"size": size, "seeds": 2}
    overrides = {"proxy": {"steps": 11}, "reference": {"steps": 12}}
    experiment = made_up.make(tmp_path, models=SMALL, training={"overrides": overrides}, verify=verify)
    found = compared(experiment)
    steps = {"proxy": 11, "reference": 12}[size]
    assert {run.training.steps for arm in found.values() for run in arm.runs.values()} == {steps}
    assert {len(arm.runs) for arm in found.values()} == {2}
    assert labels(found["natural"])[7] == ("reference" if size == "reference" else "natural")


def test_the_control_without_the_floor_is_known_with_the_answer(tmp_path):
    arm = compared(made_up.make(tmp_path, rules=["reference_without_floor"]))["reference_without_floor"]
    assert arm.weights == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    assert arm.runs[7].names == ("a", "b", "c")  # all are scored
    assert not arm.is_rule


def test_rules_that_are_the_prior_share_its_models(tmp_path):
    found = compared(made_up.make(tmp_path, rules=["uniform", "temperature(1)"]))
    assert {label: arm.same_as for label, arm in found.items()} == {
        "natural": None, "doremi": None, "uniform": None, "temperature(1)": "natural"
    }  # fmt: skip
    assert found["temperature(1)"].runs is found["natural"].runs
    assert found["temperature(1)"].asked is found["natural"].asked


def test_rounding_makes_no_new_weights(tmp_path, monkeypatch):
    experiment = made_up.make(tmp_path, rules=["uniform", "unimax", "temperature(2)", "temperature(3)"])
    almost = {
        "uniform": np.full(3, 1.0),
        "unimax": [1 + 1e-13, 1, 1],
        "temperature(2)": [1 + 1e-8, 1, 1],
        "temperature(3)": [1 + 1.1e-8, 1, 1],  # as the one before, not as uniform
    }
    resolve = specs.resolve

    def resolved(spec, setting, names):
        found = almost.get(spec)
        return resolve(spec, setting, names) if found is None else DomainWeights(dict(zip(names, found, strict=True)))

    monkeypatch.setattr(specs, "resolve", resolved)
    found = compared(experiment)
    assert found["unimax"].same_as == "uniform"
    assert found["unimax"].runs == found["uniform"].runs
    assert (found["unimax"].label, found["unimax"].method) == ("unimax", "unimax")
    assert found["temperature(2)"].same_as is None
    assert found["temperature(2)"].runs != found["uniform"].runs
    assert found["temperature(3)"].same_as == "temperature(2)"


def with_policy(experiment, policy):
    """Arms where the answer of doremi is a policy that begins with uniform weights."""
    of_uniform = {"doremi": Answer(DomainWeights(dict.fromkeys("abc", 1)), policy=policy)}
    return {arm.label: arm for arm in arms(experiment, answers(experiment) | of_uniform)}


def test_a_policy_shares_no_models_with_the_weights_that_it_begins_with(tmp_path):
    policy = GroupDRO(target="hardest")
    found = with_policy(made_up.make(tmp_path), policy)
    assert found["doremi"].same_as is found["uniform"].same_as is None
    folders = [{run.folder for run in found[label].runs.values()} for label in ("doremi", "uniform")]
    assert not folders[0] & folders[1]
    assert {run.policy for run in found["doremi"].runs.values()} == {policy}


def test_a_policy_that_compares_losses_of_a_main_model_needs_a_trained_reference(tmp_path):
    with pytest.raises(InputError, match=r"^doremi: its policy compares losses with those of a reference, and there"):
        with_policy(made_up.make(tmp_path), GroupDRO())


def test_weights_over_fewer_domains_are_others(tmp_path):
    experiment = made_up.make(tmp_path, prior={"a": 0.5, "b": 0.5})
    found = compared(experiment, {"a": 0.9, "b": 0.1})
    assert found["uniform"].weights == pytest.approx({"a": 0.5, "b": 0.5})
    assert found["natural"].same_as is None
    assert found["natural"].runs[7].names == ("a", "b")


# ---- one run by its name ----


def test_runs_by_name(tmp_path):
    experiment = made_up.make(tmp_path, doremi={"seeds": 2, "rounds": 2})
    assert [run.label for run in find_runs(experiment, "reference")] == ["reference"]
    assert [run.label for run in find_runs(experiment, "proxy")] == ["proxy", "proxy, seed 8"]
    assert [run.label for run in find_runs(experiment, "natural")] == ["natural", "natural, seed 8", "natural, seed 9"]
    with pytest.raises(InputError, match=r"^doremi: its weights are not known yet; run `doremi search` first"):
        find_runs(experiment, "doremi")
    with pytest.raises(InputError, match="no run 'mian'; there are reference, proxy, natural, doremi, uniform"):
        find_runs(experiment, "mian")


def test_the_models_of_an_answer_by_its_name(tmp_path):
    experiment = made_up.make(tmp_path)
    found = find_runs(experiment, "doremi", answers(experiment))
    assert [run.label for run in found] == ["doremi", "doremi, seed 8", "doremi, seed 9"]
    assert [run.weights for run in found] == [pytest.approx(ANSWER)] * 3
    natural = find_runs(experiment, "natural")[0]
    assert ledger.training_run(experiment, natural).folder.name.startswith("reference-")


def test_without_doremi_there_is_no_proxy_to_train(tmp_path):
    experiment = made_up.make(tmp_path, methods=["natural", "uniform"])
    assert all(isinstance(item.method, Fixed) for item in experiment.recipe.named_methods)
    with pytest.raises(InputError, match="no run 'proxy'; there are natural, uniform"):
        find_runs(experiment, "proxy")
    assert {label: each.done for label, each in known(experiment).items()} == {"natural": [], "uniform": []}


def test_a_trained_reference_is_not_trained(tmp_path):
    experiment = made_up.make(tmp_path, models={"reference": {"path": "some/model", "init": "trained"}})
    with pytest.raises(InputError, match="no run 'reference'; there are proxy, natural, doremi, uniform"):
        find_runs(experiment, "reference")
