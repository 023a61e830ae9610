"""The stages of a DoReMi run as functions of an experiment. Each is idempotent: finished work is skipped."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from doremi import launch
from doremi.errors import RunFailedError
from doremi.experiment import ledger, preflight
from doremi.experiment.arms import arms, find_runs
from doremi.experiment.opening import RUNS, Experiment, num_parameters, open_experiment, smaller_main
from doremi.experiment.recipe import Recipe
from doremi.experiment.search import answers_of, known
from doremi.experiment.search import search as search_for_weights
from doremi.experiment.search import write as write_answers
from doremi.methods.protocol import Run
from doremi.mixture.inspect import MixtureForecast, forecast

if TYPE_CHECKING:
    from doremi.evidence.schema import Results

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
        InputError: see `arguments.check_devices`, `trackers.check`, `preflight.check`, `trackers.log_in` and
            `preflight.check_machine`.
    """
    from doremi.training import arguments, trackers

    settings = [recipe.training.for_run(run) for run in RUNS]
    reporting = {str(each.arguments.get("report_to")): each.arguments for each in settings}.values()
    for each in settings:
        arguments.check_devices(each)
    for given in reporting:
        trackers.check(given)
    preflight.check(recipe, out)  # before anything that asks the network, and before weights are downloaded
    for given in reporting:
        trackers.log_in(given)
    preflight.check_machine(recipe, out)


def search(experiment: Experiment) -> None:
    """``doremi search``: train what the methods ask for, write their answers, ``search.json`` and ``report.html``.

    A report of results that are there already stays. Raises what `search.search` does.
    """
    from doremi.evidence import results_file
    from doremi.experiment.answers import collect_answers
    from doremi.report.render import write_report
    from doremi.training import distributed

    found = search_for_weights(experiment)
    distributed.leave()
    if launch.is_first():
        results_file.write(experiment.directory.search, collect_answers(experiment, found))
        write_report(experiment.directory.root)


def run_all(experiment: Experiment) -> Results | None:
    """Search, verification and ``report.html``.

    Returns:
        The results; None in all of several processes but the first, whose part ends with the training.
    """
    from doremi.report.render import write_report
    from doremi.training import distributed

    _warn_of_main_size(experiment)
    found = search_for_weights(experiment)
    for arm in arms(experiment, answers_of(found)):
        if arm.same_as is not None:
            logger.info("%s: the same weights as %s, whose models it shares", arm.label, arm.same_as)
        else:
            ledger.train(experiment, arm.asked.values())
    distributed.leave()
    if not launch.is_first():
        return None
    results = evaluate(experiment)
    write_report(experiment.directory.root)
    return results


def _warn_of_main_size(experiment: Experiment) -> None:
    models = experiment.recipe.models
    if models.main != models.proxy and launch.is_first():
        for doubt in smaller_main({run: num_parameters(experiment, run) for run in ("proxy", "main")}):
            logger.warning("%s", doubt)


def train_one(experiment: Experiment, name: str) -> None:
    """``doremi train --run NAME``: one model with every seed, and what it depends on; raises what `find_runs` does.

    ``proxy`` is all that gives the weights: every round and every seed, and the references.

    Raises:
        RunFailedError: the loss of a model is not finite.
    """
    from doremi.training import distributed

    if name == "proxy":
        find_runs(experiment, name)
        search_for_weights(experiment)
    else:
        for outcome in ledger.train(experiment, _find(experiment, name)):
            if outcome.failure is not None:
                raise RunFailedError(outcome.failure)
    distributed.leave()


def _find(experiment: Experiment, name: str) -> list[Run]:
    """The runs of a name; answers are read where they are known."""
    item = next((item for item in experiment.recipe.named_methods if item.label == name), None)
    needs_search = item is not None and bool(item.method.ask(experiment.bench, []))
    answers = answers_of(known(experiment)) if needs_search else None
    return find_runs(experiment, name, answers)


def forecast_run(experiment: Experiment, name: str, *, num_steps: int | None = None) -> MixtureForecast:
    """What the loader of a run will draw in its first steps (default: in all of them); raises what `find_runs` does."""
    run = _find(experiment, name)[0]
    training = experiment.recipe.training.for_run(run.size)
    schedule = training.mixture().schedule(
        experiment.store,
        experiment.names,
        weights=run.weights,
        global_batch_size=training.global_batch_size,
        seed=run.seed,
    )
    return forecast(schedule, num_steps=training.steps if num_steps is None else num_steps)


def evaluate(experiment: Experiment) -> Results:
    """Score the final models on held-out text; write ``results.json``, the answers, and the recommended weights."""
    from doremi.evidence import results_file
    from doremi.experiment.results import collect_results

    found = known(experiment)
    answers = answers_of(found)
    results = collect_results(experiment, found, arms(experiment, answers))
    results_file.write(experiment.directory.results, results)
    recommended = results.recommendation.arm if results.recommendation else experiment.recipe.control
    write_answers(experiment, answers, recommended=recommended)
    return results
