"""Few-shot tasks of the compared models: all get the same questions, and ``results.json`` holds the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from doremi.evaluation import downstream, task_results
from doremi.evaluation.config import EvaluationConfig
from doremi.evaluation.few_shot import FewShot
from doremi.evaluation.task_results import Average, TaskResult, average
from doremi.evidence.few_shot import ArmScore, AverageOfSeed, AverageScore, SeedScore, Task, TaskCurve, TaskDifferences
from doremi.evidence.few_shot import FewShot as FewShotResults
from doremi.evidence.statistics import over_seeds
from doremi.experiment.opening import Experiment
from doremi.experiment.runs import TrainingRun
from doremi.training import checkpoints

FOLDER = "tasks"  # in that of a run

Results = Mapping[str, TaskResult]  # by task


def ask_all(
    experiment: Experiment, runs: Mapping[str, Mapping[int, TrainingRun]], pairs: Iterable[tuple[str, str]]
) -> FewShotResults | None:
    """The ``tasks`` of ``results.json``; None where the recipe names none. What was asked before is read.

    Args:
        experiment: whose recipe names the tasks.
        runs: by arm and seed.
        pairs: (tuned, baseline) arms to compare.

    Raises:
        InputError: see `downstream.evaluate_tasks`.
    """
    config = experiment.recipe.evaluation
    if not config.tasks:
        return None
    answers = {
        arm: {seed: _ask(config, run.folder, run.folder / FOLDER) for seed, run in by_seed.items()}
        for arm, by_seed in runs.items()
    }
    curves = {arm: _curve(config, by_seed, answers[arm]) for arm, by_seed in runs.items()}
    content = summary(answers, pairs)
    return FewShotResults(
        **content,
        num_fewshot=config.num_fewshot,
        limit=config.task_limit,
        curves={arm: curve for arm, curve in curves.items() if len(curve.steps) > 1},
    )


def summary(answers: Mapping[str, Mapping[int, Results]], pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The parts of ``tasks`` that follow from the answers, ``answers[arm][seed][task]``."""
    return {
        "tasks": summarise(answers),
        "average": averages(answers),
        "comparisons": [compare(answers, tuned, baseline) for tuned, baseline in pairs],
    }


def summarise(answers: Mapping[str, Mapping[int, Results]]) -> dict[str, Task]:
    """By task what was asked, and by arm the mean over seeds."""
    first = next(iter(next(iter(answers.values())).values()))
    return {
        task: Task(
            metric=result.metric,
            higher_is_better=result.higher_is_better,
            num_documents=result.num_documents,
            num_fewshot=result.num_fewshot,
            num_truncated=result.num_truncated,  # prompts are the same for all models
            version=result.version,
            arms={arm: _over_seeds([results[task] for results in by_seed.values()], by_seed)
                  for arm, by_seed in answers.items()},
        )
        for task, result in first.items()
    }  # fmt: skip


def averages(answers: Mapping[str, Mapping[int, Results]]) -> dict[str, AverageScore]:
    """By arm, the mean over tasks and seeds; empty where no task can be averaged."""
    found = {
        arm: {seed: average(results.values()) for seed, results in by_seed.items()} for arm, by_seed in answers.items()
    }
    return {
        arm: AverageScore(
            value=float(np.mean([one.value for one in by_seed.values() if one])),
            tasks=list(next(one.tasks for one in by_seed.values() if one)),
            by_seed={str(seed): _average_of_seed(one) for seed, one in by_seed.items() if one},
        )
        for arm, by_seed in found.items()
        if all(by_seed.values())
    }


def _average_of_seed(one: Average) -> AverageOfSeed:
    return AverageOfSeed(value=one.value, standard_error=one.standard_error, tasks=list(one.tasks))


def compare(answers: Mapping[str, Mapping[int, Results]], tuned: str, baseline: str) -> TaskDifferences:
    """One pair of arms; a positive difference is a higher score."""
    after, before = _mean_scores(answers[tuned].values()), _mean_scores(answers[baseline].values())
    differences = [
        one.value - other.value
        for seed in answers[tuned]
        if (one := average(answers[tuned][seed].values())) and (other := average(answers[baseline][seed].values()))
    ]
    over_documents = task_results.average_over_documents(after, baseline=before) if average(after.values()) else None
    return TaskDifferences(
        tuned=tuned,
        baseline=baseline,
        tasks={task: task_results.over_documents(after[task], baseline=before[task]) for task in after},
        average=over_seeds(differences),
        average_over_documents=over_documents,
    )


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


def _over_seeds(results: Sequence[TaskResult], seeds: Iterable[int]) -> ArmScore:
    return ArmScore(
        value=float(np.mean([result.value for result in results])),
        by_seed={
            str(seed): SeedScore(value=result.value, standard_error=result.standard_error)
            for seed, result in zip(seeds, results, strict=True)
        },
    )


def _curve(config: EvaluationConfig, runs: Mapping[int, TrainingRun], final: Mapping[int, Results]) -> TaskCurve:
    """The average over the steps whose checkpoints every seed still has, and the last one."""
    by_step: dict[int, list[float]] = {}
    for seed, run in runs.items():
        for step, results in _at_checkpoints(config, run):
            by_step.setdefault(step, []).extend(_values(results))
        by_step.setdefault(run.training.steps, []).extend(_values(final[seed]))
    complete = {step: values for step, values in sorted(by_step.items()) if len(values) == len(runs)}
    return TaskCurve(steps=list(complete), average=[float(np.mean(values)) for values in complete.values()])


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
