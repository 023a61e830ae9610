"""What a model scored in few-shot tasks: kept by document, so that models can be compared on the same ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from doremi.errors import InputError
from doremi.evaluation import keyed_tables
from doremi.evidence.paired_documents import MIN_DOCUMENTS
from doremi.evidence.statistics import ROUNDING, Estimate, student, without_interval

MIN_DIFFERING = 10  # with fewer, t is too sure: 6 of 1,000 documents, all in favour, would be significant at 1.4 %

_SUMMARY = b"doremi.summary"
REMEDY = "delete it, and the model does the task again"


@dataclass(frozen=True)
class TaskResult:
    """One model in one task (or in all tasks of a group, their documents taken together)."""

    task: str
    metric: str  # lm-eval's name, without its filter
    value: float
    standard_error: float | None  # over documents; None: the metric is no mean over them, or there is one document
    num_documents: int
    num_fewshot: int  # as used: some tasks fix it
    num_truncated: int  # documents whose prompt did not fit into the model and lost its beginning
    higher_is_better: bool
    version: str  # lm-eval's, of the task
    prompts_digest: str  # of documents, answers and prompts, shots included
    scores: Mapping[str, float] = field(repr=False)  # by document; empty where the metric is no mean over documents

    def to_dict(self) -> dict[str, Any]:
        """JSON without the scores."""
        return {name: value for name, value in asdict(self).items() if name != "scores"}


class Average(NamedTuple):
    """The mean over tasks, each counting the same."""

    value: float
    standard_error: float | None  # over documents, the tasks being independent; None: a task has none
    tasks: tuple[str, ...]


def average(results: Iterable[TaskResult]) -> Average | None:
    """The mean of the tasks whose metric is a mean over documents of which higher is better; None: there is none."""
    averaged = [result for result in results if result.scores and result.higher_is_better]
    if not averaged:
        return None
    errors = [result.standard_error for result in averaged if result.standard_error is not None]
    return Average(
        value=float(np.mean([result.value for result in averaged])),
        standard_error=float(np.linalg.norm(errors)) / len(averaged) if len(errors) == len(averaged) else None,
        tasks=tuple(result.task for result in averaged),
    )


def over_documents(tuned: TaskResult, *, baseline: TaskResult) -> Estimate:
    """Tuned minus baseline by a paired t over the documents of one task.

    No interval below 30 documents, or where fewer than 10 differ in score. This says nothing about another seed of
    either model (see `verdict`).

    Raises:
        InputError: the two models did not get the same prompts, or were scored by another metric.
    """
    differences = _differences(tuned, baseline)
    num_documents = len(differences)
    if not num_documents:
        return without_interval(tuned.value - baseline.value, f"{tuned.metric} is no mean over documents")
    if reason := _why_no_interval(differences):
        return without_interval(float(differences.mean()), reason)
    if np.ptp(differences) < ROUNDING:
        return without_interval(
            float(differences.mean()), f"the difference is the same in all {num_documents} documents"
        )
    return student(
        float(differences.mean()),
        standard_error=float(differences.std(ddof=1)) / num_documents**0.5,
        degrees_of_freedom=num_documents - 1,
        method=f"paired t over documents (n={num_documents})",
    )


def average_over_documents(tuned: Mapping[str, TaskResult], *, baseline: Mapping[str, TaskResult]) -> Estimate:
    """Tuned minus baseline of `average`, over the documents within each task that both models did.

    The tasks are independent strata: standard_error² = Σ_tasks s² / n / k², degrees of freedom by Welch and
    Satterthwaite. A task in which no score differs counts as one without a difference. No interval below 30 documents
    in all, or where fewer than 10 of them differ in score.

    Raises:
        InputError: the models share no task with a mean over documents, or see `over_documents`.

    Source: Cochran 1977, "Sampling Techniques", chapter 5 (strata); Satterthwaite 1946, Biometrics 2, 110.
    """
    shared = [name for name in tuned if name in baseline and average([tuned[name]])]
    if not shared:
        raise InputError("the two models did no task in common that has a score by document; evaluate both on the same")
    by_task = [_differences(tuned[name], baseline[name]) for name in shared]
    value = float(np.mean([differences.mean() for differences in by_task]))
    if reason := _why_no_interval(np.concatenate(by_task)):
        return without_interval(value, reason)
    if min(map(len, by_task)) < 2:
        return without_interval(value, "a task has one document")
    variances = np.array([differences.var(ddof=1) / len(differences) for differences in by_task]) / len(by_task) ** 2
    if variances.sum() < ROUNDING**2:
        return without_interval(value, "the difference is the same in all documents of each task")
    freedom = np.array([len(differences) - 1 for differences in by_task])
    return student(
        value,
        standard_error=float(variances.sum() ** 0.5),
        degrees_of_freedom=float(variances.sum() ** 2 / (variances**2 / freedom).sum()),
        method=f"paired t over documents within tasks (n={sum(map(len, by_task))} in {len(by_task)} tasks)",
    )


def path(folder: Path, task: str) -> Path:
    """The file of one task's result in the folder of a model."""
    return folder / f"{quote(task, safe='')}.parquet"


def write(folder: Path, result: TaskResult, *, key: str) -> None:
    """One Parquet file a task, written atomically: columns document and score, the summary as JSON in its metadata.

    Args:
        folder: of one model.
        result: of one task.
        key: of everything that it depends on; `read` asks for it.
    """
    columns = {
        "document": pa.array(result.scores, pa.string()),
        "score": pa.array(result.scores.values(), pa.float64()),
    }
    summary = json.dumps(result.to_dict(), ensure_ascii=False).encode()
    keyed_tables.write(path(folder, result.task), pa.table(columns), key=key, metadata={_SUMMARY: summary})


def read(folder: Path, task: str, *, key: str) -> TaskResult | None:
    """What `write` put there under the same key; None: nothing.

    Raises:
        InputError: the file is damaged.
    """
    complaint = "not a Parquet file of scores"
    table = keyed_tables.read(path(folder, task), key=key, remedy=REMEDY, complaint=complaint)
    if table is None:
        return None
    scores = dict(zip(table["document"].to_pylist(), table["score"].to_pylist(), strict=True))
    try:
        return TaskResult(**json.loads(table.schema.metadata[_SUMMARY]), scores=scores)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path(folder, task)}: {complaint} ({error!r}); {REMEDY}") from None


def _differences(tuned: TaskResult, baseline: TaskResult) -> np.ndarray:
    """float64[n] by document; n is 0 where the metric is no mean over documents."""
    _check_paired(tuned, baseline)
    return np.array([score - baseline.scores[document] for document, score in tuned.scores.items()], np.float64)


def _why_no_interval(differences: np.ndarray) -> str | None:
    num_documents, num_differing = len(differences), int((np.abs(differences) > ROUNDING).sum())
    if num_documents < MIN_DOCUMENTS:
        return f"{num_documents} of the {MIN_DOCUMENTS} documents that an interval needs"
    if num_differing < MIN_DIFFERING:
        return f"{num_differing} of {num_documents} documents differ in score, an interval needs {MIN_DIFFERING}"
    return None


def _check_paired(tuned: TaskResult, baseline: TaskResult) -> None:
    for what in ("task", "metric", "prompts_digest"):
        if (after := getattr(tuned, what)) != (before := getattr(baseline, what)):
            raise InputError(
                f"{tuned.task}: the two models were not asked the same ({what.removesuffix('_digest')}: {after} and "
                f"{before}); evaluate both with the same tasks, shots, limit, seed and version of lm-eval"
            )
