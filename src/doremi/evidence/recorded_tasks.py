"""Few-shot tasks in `results.json`: their schema, and the rows of what is shown. Higher scores are better, mostly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from doremi.evidence.schema import Estimate, Measured, Part
from doremi.text import visible

if TYPE_CHECKING:
    from doremi.evidence.recorded_results import Results


class SeedScore(Part):
    """One model in one task."""

    value: Measured
    standard_error: Measured = None  # over documents


class RunScore(Part):
    """One run in one task: the mean over its seeds."""

    value: Measured
    by_seed: dict[str, SeedScore] = Field(default_factory=dict)


class Task(Part):
    """What all runs were asked, and how they answered."""

    metric: str
    num_documents: int
    num_fewshot: int
    num_truncated: int = 0  # prompts that were too long for the models and lost their beginning
    higher_is_better: bool = True
    runs: dict[str, RunScore]


class AverageScore(Part):
    """The mean over the tasks whose scores can be averaged."""

    value: Measured


class TaskDifferences(Part):
    """Tuned minus baseline in every task, over documents, and in their average."""

    tuned: str
    baseline: str
    tasks: dict[str, Estimate]
    average: Estimate
    average_over_documents: Estimate | None = None

    @property
    def shown_average(self) -> Estimate:
        """Over seeds where there are enough, else over documents."""
        return self.average if self.average.low is not None else self.average_over_documents or self.average


class TaskCurve(Part):
    """The average score while one run trained."""

    steps: list[int]
    average: list[Measured]

    @model_validator(mode="after")
    def _equally_long(self) -> TaskCurve:
        if len(self.steps) != len(self.average):
            raise ValueError(f"{len(self.average)} averages for {len(self.steps)} steps")
        return self


class FewShot(Part):
    """All of ``tasks``."""

    tasks: dict[str, Task]
    average: dict[str, AverageScore] = Field(default_factory=dict)
    comparisons: list[TaskDifferences] = Field(default_factory=list)
    curves: dict[str, TaskCurve] = Field(default_factory=dict)


@dataclass(frozen=True)
class TaskRow:
    """One task, or the average; ``scores`` and ``standard_errors`` in the order of `Results.run_names`."""

    name: str
    metric: str
    num_documents: int | None
    num_fewshot: int | None
    scores: tuple[float | None, ...]
    standard_errors: tuple[float | None, ...]  # over documents, of runs with one seed


@dataclass(frozen=True)
class DifferenceRow:
    """One pair: its differences in every task, in the order of `task_rows`, the average last."""

    tuned: str
    baseline: str
    differences: tuple[Estimate | None, ...]


def task_rows(results: Results) -> list[TaskRow]:
    """One row a task, in the order of the file, then the average where there is one of several tasks."""
    if results.tasks is None:
        return []
    rows = [_task_row(name, task, results.run_names) for name, task in results.tasks.tasks.items()]
    if len(rows) > 1 and results.tasks.average:
        scores = [results.tasks.average.get(run) for run in results.run_names]
        values = tuple(score.value if score else None for score in scores)
        rows.append(TaskRow("average", "", None, None, values, (None,) * len(values)))
    return rows


def _task_row(name: str, task: Task, run_names: Sequence[str]) -> TaskRow:
    scores = [task.runs.get(run) for run in run_names]
    return TaskRow(
        name=visible(name),
        metric=_metric(task),
        num_documents=task.num_documents,
        num_fewshot=task.num_fewshot,
        scores=tuple(score.value if score else None for score in scores),
        standard_errors=tuple(_standard_error(score) if score else None for score in scores),
    )


def _metric(task: Task) -> str:
    direction = "" if task.higher_is_better else " (lower is better)"
    cut = f"; {task.num_truncated:,} prompts cut" if task.num_truncated else ""
    return visible(task.metric) + direction + cut


def _standard_error(score: RunScore) -> float | None:
    """Of the only seed; over several, the documents are the same and their errors do not average out."""
    seeds = list(score.by_seed.values())
    return seeds[0].standard_error if len(seeds) == 1 else None


def difference_rows(results: Results) -> list[DifferenceRow]:
    """One row a pair, in the order of the file."""
    if results.tasks is None:
        return []
    names = list(results.tasks.tasks)
    has_average = len(names) > 1 and bool(results.tasks.average)
    return [
        DifferenceRow(
            visible(pair.tuned),
            visible(pair.baseline),
            (*(pair.tasks.get(name) for name in names), *([pair.shown_average] if has_average else [])),
        )
        for pair in results.tasks.comparisons
    ]
