"""``results.json`` of a finished experiment: what the runs' folders and the token store hold, as a `Study`."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from doremi.errors import InputError, RunFailedError
from doremi.evaluation import perplexity
from doremi.evidence.build import build, planned_pairs
from doremi.evidence.comparing import nats_per_token
from doremi.evidence.schema import Results, Verify
from doremi.evidence.study import FinishedSearch, Study, TrainedArm
from doremi.experiment import few_shot_runs, finished, ledger, runs, scoring
from doremi.experiment.answers import convergence, policy_trajectory, provenance
from doremi.experiment.arms import Arm
from doremi.experiment.costs import run_flops, search_costs, search_flops
from doremi.experiment.learning_curves import learning_curve
from doremi.experiment.search import Found, searched
from doremi.methods import alarms as checks
from doremi.methods.fixed import WITHOUT_FLOOR
from doremi.weights import rules
from doremi.weights.alarm import Alarm

FAILED_REMEDY = "a lower training.learning_rate may help; or leave the method out of the recipe"

if TYPE_CHECKING:
    from doremi.evaluation.perplexity import HeldOutSet
    from doremi.experiment.opening import Experiment


def collect_results(experiment: Experiment, found: Mapping[str, Found], arms: Sequence[Arm]) -> Results:
    """Score every arm's models and put all numbers together.

    Args:
        experiment: with all runs of the arms finished, but for those that failed.
        found: the answers by label, with the runs that led to them.
        arms: in the recipe's order. One of whose models one failed is left out; an alarm says so.

    Raises:
        RunFailedError: a model of the control failed, so that there is nothing to compare with.
        InputError: a model is not trained yet.
    """
    failures = {arm.label: why for arm in arms if (why := _failure(arm)) is not None}
    control = experiment.recipe.control
    if control in failures:
        raise RunFailedError(f"{failures[control]}. The other methods are compared with {control}; {FAILED_REMEDY}")
    arms = [arm for arm in arms if arm.label not in failures]
    _check_trained(experiment, arms)
    held_out = scoring.held_out_set(experiment)
    trained = {arm.label: _trained(experiment, arm, held_out) for arm in arms}
    study = Study(
        arms=trained,
        control=control,
        target=experiment.recipe.target,
        prior=dict(experiment.prior),
        tokens={name: experiment.store.num_tokens(name) for name in experiment.names},
        sets=perplexity.describe(held_out),
        verify=Verify(size=experiment.recipe.verify.size, seeds=experiment.recipe.verify.seeds),
        alarms=[Alarm("failed", f"{why}; it is left out of all tables", FAILED_REMEDY) for why in failures.values()],
        provenance=provenance(experiment),
    )
    searching = searched(experiment)
    searches = {
        arm.label: _search(experiment, study, arm, found[arm.label], arms) for arm in arms if arm.label in searching
    }
    flops = {label: math.fsum(search.flops.values()) for label, search in searches.items()}
    paid = {label: replace(arm, search_flops=flops.get(label, 0.0)) for label, arm in trained.items()}
    study = replace(study, arms=paid, searches=searches)
    models = {arm.label: arm.runs for arm in arms}
    return build(replace(study, tasks=few_shot_runs.ask_all(experiment, models, planned_pairs(study))))


def _failure(arm: Arm) -> str | None:
    """Why an arm has not all of its models; those with other seeds alone would be a choice of the lucky ones."""
    failures = {seed: finished.failure(run.folder) for seed, run in arm.runs.items()}
    return next((f"{arm.label}, seed {seed}: {why}" for seed, why in failures.items() if why is not None), None)


def _check_trained(experiment: Experiment, arms: Sequence[Arm]) -> None:
    for arm in arms:
        for run in arm.runs.values():
            if not runs.is_finished(run, experiment.store):
                raise InputError(
                    f"{run.name} is not trained yet; run `doremi train --run {shlex.quote(arm.label)}` with the same "
                    "recipe and --out first"
                )


def _trained(experiment: Experiment, arm: Arm, held_out: HeldOutSet) -> TrainedArm:
    markers = {seed: finished.facts(run.folder) for seed, run in arm.runs.items()}
    first = next(iter(markers.values()))
    return TrainedArm(
        method=arm.method,
        weights=None if arm.answer.policy else arm.weights.over(experiment.names),
        losses={seed: scoring.score(experiment, run, held_out) for seed, run in arm.runs.items()},
        curves={seed: learning_curve(run) for seed, run in arm.runs.items()},
        steps=first["steps"],
        num_parameters=first["num_parameters"],
        num_tokens=first["num_tokens"],
        train_flops=run_flops(experiment, next(iter(arm.asked.values()))),
        train_seconds={seed: marker["train_seconds"] for seed, marker in markers.items()},
        folders={seed: str(run.folder.relative_to(experiment.directory.root)) for seed, run in arm.runs.items()},
        epochs=first["epochs"],
        same_as=arm.same_as,
    )


def _search(experiment: Experiment, study: Study, arm: Arm, found: Found, arms: Sequence[Arm]) -> FinishedSearch:
    """How the weights of an arm were found."""
    answer, prior = arm.weights.over(experiment.names), study.prior
    asked = [outcome.run for outcome in found.done]
    folders = {run.folder for other in arms for run in other.runs.values()}
    return FinishedSearch(
        flops=search_flops(experiment, asked),
        costs=search_costs(experiment, asked, folders),
        alarms=[*arm.answer.alarms, *_starvation(experiment, study, found, answer, folders)],
        convergence=convergence(arm.answer.facts, answer, prior),
        trajectory=policy_trajectory(experiment, found),
        floor=rules.floor_domains(prior, answer),
        plain_arm=next((other.label for other in arms if other.method == WITHOUT_FLOOR), None),
    )


def _starvation(
    experiment: Experiment, study: Study, found: Found, answer: Mapping[str, float], folders: Collection[Path]
) -> list[Alarm]:
    """Known where the reference is the control's run, and a model like it was trained on uniform weights."""
    references = [outcome.run for outcome in found.done if outcome.run.size == "reference"]
    shared = any(ledger.training_run(experiment, run).folder in folders for run in references)
    if "uniform" not in study.arms or not shared:
        return []
    control, uniform = (
        nats_per_token(study.arms[label].losses[experiment.recipe.seed])  # the reference's seed
        for label in (study.control, "uniform")
    )
    return list(checks.check_starvation(answer, study.prior, reference_nats=control, uniform_nats=uniform))
