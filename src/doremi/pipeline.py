"""The stages of a DoReMi run as functions of an experiment. Each is idempotent: finished work is skipped."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from doremi import answer, files, launch, planned_runs, preflight, runs
from doremi.experiment import RUNS, Experiment, num_parameters, open_experiment
from doremi.mixture.inspect import MixtureForecast, forecast
from doremi.recipe import Recipe

logger = logging.getLogger(__name__)

__all__ = ["check_devices", "evaluate", "forecast_run", "open_experiment", "run_all", "set_threads", "train_one"]


def set_threads(recipe: Recipe) -> None:
    """CPU threads of torch, if the recipe says how many."""
    import torch

    if recipe.training.num_threads is not None:
        torch.set_num_threads(recipe.training.num_threads)


def check_devices(recipe: Recipe, out: Path) -> None:
    """What training into the run directory ``out`` needs of this machine.

    Raises:
        InputError: see `arguments.check_devices`, `preflight.check`, `trackers.check` and `preflight.check_machine`.
    """
    from doremi.training import arguments, trackers

    settings = [recipe.training.for_run(run) for run in RUNS]
    for each in settings:
        arguments.check_devices(each)
    preflight.check(recipe, out)  # before anything that asks the network, and before weights are downloaded
    for given in {str(each.arguments.get("report_to")): each.arguments for each in settings}.values():
        trackers.check(given)  # W&B's login asks the network
    preflight.check_machine(recipe, out)


def run_all(experiment: Experiment) -> dict[str, Any] | None:
    """Every stage, from the reference to ``report.html``.

    Returns:
        The results; None in all of several processes but the first, whose part ends with the training.
    """
    from doremi.report.render import write_report
    from doremi.training import distributed

    _warn_of_main_size(experiment)
    answer.find_weights(experiment)
    compared = planned_runs.comparisons(experiment)
    for label in planned_runs.same_as_reference(experiment, compared):
        logger.info("%s: the reference weights, so its run is the baseline", label)
    for item in compared:
        for run in item.runs.values():
            runs.train(run, experiment.store)
    distributed.leave()
    if not launch.is_first():
        return None
    results = evaluate(experiment)
    write_report(experiment.directory.root)
    return results


def _warn_of_main_size(experiment: Experiment) -> None:
    from doremi.planning import doubts

    models = experiment.recipe.models
    if models.main != models.proxy and launch.is_first():
        for doubt in doubts.main_size({run: num_parameters(experiment, run) for run in ("proxy", "main")}):
            logger.warning("%s", doubt)


def train_one(experiment: Experiment, name: str) -> None:
    """``doremi train --run NAME``: one model with every seed, and what it depends on; raises what `find_runs` does.

    ``proxy`` is all that gives the weights: every round and every seed, and the references.
    """
    from doremi.training import distributed

    found = planned_runs.find_runs(experiment, name)
    if name == "proxy":
        answer.find_weights(experiment)
    else:
        for run in found:
            runs.train(run, experiment.store)
    distributed.leave()


def forecast_run(experiment: Experiment, name: str, *, num_steps: int | None = None) -> MixtureForecast:
    """What the loader of a run will draw in its first steps (default: in all of them); raises what `find_runs` does."""
    run = planned_runs.find_runs(experiment, name)[0]
    schedule = run.training.mixture().schedule(
        experiment.store,
        run.names,
        weights=run.sampling_weights,
        global_batch_size=run.training.global_batch_size,
        seed=run.seed,
    )
    return forecast(schedule, num_steps=run.training.steps if num_steps is None else num_steps)


def evaluate(experiment: Experiment) -> dict[str, Any]:
    """Score the final models on held-out text and write ``results.json``."""
    from doremi.results import collect_results

    results = collect_results(experiment, planned_runs.comparisons(experiment))
    files.write_json(experiment.directory.results, results)
    return results
