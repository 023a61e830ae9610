"""Few-shot tasks of the compared models: all are asked the same, and ``results.json`` says what they answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from doremi.evaluation import downstream, task_results
from doremi.evaluation.config import EvaluationConfig
from doremi.evaluation.few_shot import FewShot
from doremi.evaluation.task_results import TaskResult, average
from doremi.evidence.statistics import over_seeds
from doremi.experiment.opening import Experiment
from doremi.experiment.planned_runs import Comparison, pairs
from doremi.experiment.runs import TrainingRun
from doremi.training import checkpoints

FOLDER = "tasks"  # in that of a run

Results = Mapping[str, TaskResult]  # by task


def ask_all(experiment: Experiment, comparisons: Sequence[Comparison]) -> dict[str, Any] | None:
    """The ``tasks`` of ``results.json``; None where the recipe names none. What was asked before is read.

    Raises:
        InputError: see `downstream.evaluate_tasks`.
    """
    config = experiment.recipe.evaluation
    if not config.tasks:
        return None
    asked = {
        item.name: {seed: _ask(config, run.folder, run.folder / FOLDER) for seed, run in item.runs.items()}
        for item in comparisons
    }
    curves = {item.name: _curve(config, item, asked[item.name]) for item in comparisons}
    return {
        "num_fewshot": config.num_fewshot,
        "limit": config.task_limit,
        "tasks": summarise(asked),
        "average": averages(asked),
        "comparisons": compare_all(asked),
        "curves": {name: curve for name, curve in curves.items() if len(curve["steps"]) > 1},
    }


def summarise(asked: Mapping[str, Mapping[int, Results]]) -> dict[str, Any]:
    """By task what was asked, and by run the mean over seeds; ``asked[run][seed][task]``."""
    first = next(iter(next(iter(asked.values())).values()))
    return {
        task: {
            "metric": result.metric,
            "higher_is_better": result.higher_is_better,
            "num_documents": result.num_documents,
            "num_fewshot": result.num_fewshot,
            "num_truncated": result.num_truncated,  # prompts are the same for all models
            "version": result.version,
            "runs": {run: _over_seeds([results[task] for results in by_seed.values()], by_seed)
                     for run, by_seed in asked.items()},
        }
        for task, result in first.items()
    }  # fmt: skip


def averages(asked: Mapping[str, Mapping[int, Results]]) -> dict[str, Any]:
    """By run, the mean over tasks and seeds; empty where no task can be averaged."""
    found = {
        run: {seed: average(results.values()) for seed, results in by_seed.items()} for run, by_seed in asked.items()
    }
    return {
        run: {
            "value": float(np.mean([one.value for one in by_seed.values() if one])),
            "tasks": list(next(one.tasks for one in by_seed.values() if one)),
            "by_seed": {str(seed): one._asdict() for seed, one in by_seed.items() if one},
        }
        for run, by_seed in found.items()
        if all(by_seed.values())
    }


def compare_all(asked: Mapping[str, Mapping[int, Results]]) -> list[dict[str, Any]]:
    """The `pairs` of runs; a positive difference is a higher score."""
    return [_compare(asked, tuned, baseline) for tuned, baseline in pairs(asked)]


def _compare(asked: Mapping[str, Mapping[int, Results]], tuned: str, baseline: str) -> dict[str, Any]:
    after, before = _mean_scores(asked[tuned].values()), _mean_scores(asked[baseline].values())
    differences = [
        one.value - other.value
        for seed in asked[tuned]
        if (one := average(asked[tuned][seed].values())) and (other := average(asked[baseline][seed].values()))
    ]
    return {
        "tuned": tuned,
        "baseline": baseline,
        "tasks": {task: asdict(task_results.over_documents(after[task], baseline=before[task])) for task in after},
        "average": asdict(over_seeds(differences)),
        "average_over_documents": (
            asdict(task_results.average_over_documents(after, baseline=before)) if average(after.values()) else None
        ),
    }


def _mean_scores(by_seed: Iterable[Results]) -> dict[str, TaskResult]:
    """The mean score of each document over the seeds: what is left is the choice of documents."""
    all_results = list(by_seed)
    return {
        task: replace(
            first,
            value=float(np.mean([results[task].value for results in all_results])),
            scores={
                document: float(np.mean([results[task].scores[document] for results in all_results]))
                for document in first.scores
            },
        )
        for task, first in all_results[0].items()
    }


def _over_seeds(results: Sequence[TaskResult], seeds: Iterable[int]) -> dict[str, Any]:
    return {
        "value": float(np.mean([result.value for result in results])),
        "by_seed": {
            str(seed): {"value": result.value, "standard_error": result.standard_error}
            for seed, result in zip(seeds, results, strict=True)
        },
    }


def _curve(config: EvaluationConfig, item: Comparison, final: Mapping[int, Results]) -> dict[str, list[Any]]:
    """The average over the steps whose checkpoints every seed still has, and the last one."""
    by_step: dict[int, list[float]] = {}
    for seed, run in item.runs.items():
        for step, results in _at_checkpoints(config, run):
            by_step.setdefault(step, []).extend(_values(results))
        by_step.setdefault(run.training.steps, []).extend(_values(final[seed]))
    complete = {step: values for step, values in sorted(by_step.items()) if len(values) == len(item.runs)}
    return {"steps": list(complete), "average": [float(np.mean(values)) for values in complete.values()]}


def _at_checkpoints(config: EvaluationConfig, run: TrainingRun) -> Iterable[tuple[int, Results]]:
    """The last one is the final model."""
    if config.task_checkpoints == "all":
        for step in checkpoints.steps(run.folder):
            if step < run.training.steps:
                folder = checkpoints.path(run.folder, step)
                yield step, _ask(config, folder, run.folder / FOLDER / folder.name)


def _values(results: Results) -> list[float]:
    found = average(results.values())
    return [] if found is None else [found.value]


def _ask(config: EvaluationConfig, model: Path, results: Path) -> dict[str, TaskResult]:
    return downstream.evaluate_tasks(
        model,
        config.tasks,
        results=results,
        batch_size=config.batch_size,
        few_shot=FewShot(num_fewshot=config.num_fewshot, limit=config.task_limit),
    )
