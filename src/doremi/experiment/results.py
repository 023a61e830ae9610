"""``results.json`` of a finished experiment: what the runs' folders and the token store hold, as a `Study`."""

from __future__ import annotations

import math
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from doremi import __version__, redaction
from doremi.evaluation import perplexity
from doremi.evidence.build import build, planned_pairs
from doremi.evidence.comparing import nats_per_token
from doremi.evidence.schema import Results, Verify
from doremi.evidence.searches import Convergence
from doremi.evidence.study import FinishedSearch, Study, TrainedArm
from doremi.evidence.targets import Spec
from doremi.experiment import few_shot_runs, finished, planned_runs, scoring
from doremi.experiment.costs import search_costs, search_flops, training_flops
from doremi.experiment.learning_curves import learning_curve, trajectory
from doremi.experiment.runs import BASELINE, MAIN, TrainingRun
from doremi.methods import alarms as checks
from doremi.weights import rules, specs
from doremi.weights.alarm import Alarm

if TYPE_CHECKING:
    from doremi.evaluation.perplexity import HeldOutSet
    from doremi.experiment.opening import Experiment
    from doremi.experiment.planned_runs import Comparison

PLAIN_ARM = "reference_without_floor"  # the reference weights, without the domains at the floor


@dataclass(frozen=True)
class PlannedArm:
    """An arm of the experiment before its runs are read: the models of one answer, by seed."""

    method: str
    weights: Mapping[str, float]
    runs: Mapping[int, TrainingRun]
    searched: bool = False
    same_as: str | None = None


def collect_results(experiment: Experiment, arms: Mapping[str, PlannedArm], *, control: str, target: Spec) -> Results:
    """Score every arm's models and put all numbers together.

    Args:
        experiment: with all runs of the arms finished.
        arms: by label.
        control: the arm that the others are compared with.
        target: what is to be low.
    """
    held_out = scoring.held_out_set(experiment)
    trained = {label: _trained(experiment, arm, held_out) for label, arm in arms.items()}
    study = Study(
        arms=trained,
        control=control,
        target=target,
        prior=dict(experiment.reference_weights),
        tokens={name: experiment.store.num_tokens(name) for name in experiment.names},
        sets=perplexity.describe(held_out),
        verify=Verify(size="main", seeds=len(arms[control].runs)),
        provenance=_provenance(experiment),
    )
    searches = {label: _search(experiment, study, label) for label, arm in arms.items() if arm.searched}
    flops = {label: math.fsum(search.flops.values()) for label, search in searches.items()}
    paid = {label: replace(arm, search_flops=flops.get(label, 0.0)) for label, arm in trained.items()}
    study = replace(study, arms=paid, searches=searches)
    runs = {label: arm.runs for label, arm in arms.items()}
    return build(replace(study, tasks=few_shot_runs.ask_all(experiment, runs, planned_pairs(study))))


def planned_arms(experiment: Experiment, comparisons: Sequence[Comparison]) -> dict[str, PlannedArm]:
    """The compared runs as arms, by label; the first is the control. An arm that shares another's runs says so."""
    found: dict[str, PlannedArm] = {}
    for item in comparisons:
        same = next((label for label, arm in found.items() if arm.runs is item.runs), None)
        found[_label(experiment, item)] = PlannedArm(
            method=item.weights_name,
            weights=item.sampling_weights,
            runs=item.runs,
            searched=item.name == MAIN,
            same_as=same,
        )
    return found


def _label(experiment: Experiment, item: Comparison) -> str:
    names = {BASELINE: specs.label(experiment.recipe.weights.reference), MAIN: "doremi"}
    return names.get(item.name, item.name)


def _trained(experiment: Experiment, arm: PlannedArm, held_out: HeldOutSet) -> TrainedArm:
    markers = {seed: finished.facts(run.folder) for seed, run in arm.runs.items()}
    first = next(iter(markers.values()))
    return TrainedArm(
        method=arm.method,
        weights=dict(arm.weights),
        losses={seed: scoring.score(experiment, run, held_out) for seed, run in arm.runs.items()},
        curves={seed: learning_curve(run) for seed, run in arm.runs.items()},
        steps=first["steps"],
        num_parameters=first["num_parameters"],
        num_tokens=first["num_tokens"],
        train_flops=training_flops(experiment, "main", num_tokens=first["num_tokens"]),
        train_seconds={seed: marker["train_seconds"] for seed, marker in markers.items()},
        folders={seed: str(run.folder.relative_to(experiment.directory.root)) for seed, run in arm.runs.items()},
        epochs=first["epochs"],
        same_as=arm.same_as,
    )


def _search(experiment: Experiment, study: Study, label: str) -> FinishedSearch:
    """How DoReMi's weights were found."""
    answer, prior = study.arms[label].weights or {}, study.prior
    found = finished.search(experiment.directory.weights)
    last_proxy = planned_runs.proxy_folders(experiment, len(found["rounds"]["weights"]))[experiment.recipe.seed]
    alarms = [Alarm(alarm["name"], alarm["finding"], alarm["remedy"]) for alarm in found["alarms"]]
    return FinishedSearch(
        flops=search_flops(experiment, found),
        costs=search_costs(experiment, found),
        alarms=[*alarms, *_starvation(experiment, study, answer)],
        convergence=_convergence(found, answer, prior),
        trajectory=trajectory(finished.load_history(last_proxy, experiment.names), experiment.names),
        floor=rules.floor_domains(prior, answer),
        plain_arm=PLAIN_ARM if PLAIN_ARM in study.arms else None,
    )


def _convergence(search: Mapping[str, Any], answer: Mapping[str, float], prior: Mapping[str, float]) -> Convergence:
    """How far the weights moved from the prior, over all rounds, and how the rounds went."""
    return Convergence(
        max_change=max(abs(answer[name] - weight) for name, weight in prior.items()),
        effective_num_domains=checks.effective_number(answer),
        status=search["rounds"]["status"],
        changes=search["rounds"]["changes"],
        spread=search["spread"],
    )


def _starvation(experiment: Experiment, study: Study, answer: Mapping[str, float]) -> list[Alarm]:
    """Known where the reference is the control's run, and a model like it was trained on uniform weights."""
    if "uniform" not in study.arms or not planned_runs.trains_alike(experiment.recipe, "reference", "main"):
        return []
    control, uniform = (
        nats_per_token(study.arms[label].losses[experiment.recipe.seed])  # the reference's seed
        for label in (study.control, "uniform")
    )
    return list(checks.check_starvation(answer, study.prior, reference_nats=control, uniform_nats=uniform))


def _provenance(experiment: Experiment) -> dict[str, Any]:
    return {
        "doremi": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "transformers", "tokenizers", "numpy")},
        "corpus_digest": experiment.store.digest,
        "tokenizer_digest": experiment.store.tokenizer_digest,
        "recipe_digest": experiment.recipe.digest,
        "command": redaction.published(shlex.join(["doremi", *sys.argv[1:]])),
    }
