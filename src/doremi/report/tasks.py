"""Few-shot tasks as the rows of what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from doremi.evidence.few_shot import ArmScore, Task
from doremi.evidence.schema import Results
from doremi.evidence.statistics import Estimate
from doremi.text import visible


@dataclass(frozen=True)
class TaskRow:
    """One task, or the average; ``scores`` and ``standard_errors`` in the order of `Results.arm_names`."""

    name: str
    metric: str
    num_documents: int | None
    num_fewshot: int | None
    scores: tuple[float | None, ...]
    standard_errors: tuple[float | None, ...]  # over documents, of arms with one seed


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
    rows = [_task_row(name, task, results.arm_names) for name, task in results.tasks.tasks.items()]
    if len(rows) > 1 and results.tasks.average:
        scores = [results.tasks.average.get(arm) for arm in results.arm_names]
        values = tuple(score.value if score else None for score in scores)
        rows.append(TaskRow("average", "", None, None, values, (None,) * len(values)))
    return rows


def _task_row(name: str, task: Task, arm_names: Sequence[str]) -> TaskRow:
    scores = [task.arms.get(arm) for arm in arm_names]
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


def _standard_error(score: ArmScore) -> float | None:
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
