"""The one file that knows lm-evaluation-harness (0.4.13): a model and a task in, scores by document out.

Prompts, shots and metrics are lm-eval's own, so that numbers can be set beside published ones. Where we differ:

1. ``limit`` documents are spread over the whole task instead of being its first ones: SQuADv2's first 100 questions
   are all about the Normans.
2. No document is among its own shots. lm-eval lets that happen where shots come from the documents that are asked and
   the task does not say so, as in LAMBADA.
3. At most half of the model's positions are for the answer. lm-eval keeps 256 free, which is more than a model trained
   on short sequences has.
4. SQuADv2 is scored here (see `squad`).
5. Standard errors are those of a mean over documents, or none: no bootstrap with 100,000 draws.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import lm_eval
import numpy as np
import torch
from datasets.exceptions import DatasetsError
from lm_eval.api.metrics import mean
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.tasks import TaskManager

from doremi import files
from doremi.errors import InputError
from doremi.evaluation.few_shot import FewShot
from doremi.evaluation.language_model import LanguageModel, quiet
from doremi.evaluation.squad import SQuADv2
from doremi.evaluation.task_results import TaskResult
from doremi.evaluation.task_sources import TaskSource

_MAIN_METRICS = ("exact_match", "exact", "acc")  # else the first that a task names
_PROMPT_HASHES = ("doc_hash", "target_hash", "prompt_hash")


class _Metric(NamedTuple):
    """What a task is compared by."""

    name: str
    is_mean: bool  # over documents
    higher_is_better: bool


def evaluate(model: LM, source: TaskSource, *, few_shot: FewShot) -> TaskResult:
    """Ask one task, or all tasks of a group or tag.

    Raises:
        InputError: there is no such task, its data cannot be had, or it cannot be asked with these settings.
    """
    with quiet(), _seeded(few_shot.seed):
        tasks = _load(source)
        metric = _common_metric(source, tasks)
        for name, task in tasks.items():
            _prepare(name, task, model, few_shot)
        limit = few_shot.limit
        chosen = {name: _spread(len(task.eval_docs), limit) for name, task in tasks.items()} if limit else None
        found = lm_eval.evaluate(model, {"tasks": tasks}, samples=chosen, bootstrap_iters=0)
    return _result(source, model, found, metric)


def check(source: TaskSource, *, few_shot: FewShot) -> None:
    """Load a task without asking it; raises what `evaluate` does of a task."""
    with quiet():
        tasks = _load(source)
        _common_metric(source, tasks)
        for name, task in tasks.items():
            _check(name, task, few_shot)


def _load(source: TaskSource) -> dict[str, Task]:
    try:
        if source.path is not None:
            local = TaskManager(include_path=source.path.parent, include_defaults=False)
            is_group = source.name in local.all_groups  # by path, lm-eval loads tasks only
            return local.load([source.name if is_group else str(source.path)])["tasks"]
        if source.name == SQuADv2.NAME:
            return {source.name: SQuADv2()}
        if source.name not in _index().task_index:
            raise InputError(_unknown(source.name))
        return _index().load([source.name])["tasks"]
    except (OSError, DatasetsError) as error:
        raise InputError(
            f"task {source.name!r}: its data cannot be had: {error}. Run it once where the Hugging Face Hub can be "
            "reached (without HF_HUB_OFFLINE) and keep that machine's cache (HF_HOME), or name a local YAML task "
            "whose data_files lie on disk"
        ) from error
    except RuntimeError as error:
        if "Dataset scripts" not in str(error):
            raise
        raise InputError(
            f"task {source.name!r} cannot be asked: its data come as a program ({error}); name another task"
        ) from error
    except ImportError as error:
        raise InputError(f"task {source.name!r} needs a package that is not installed: {error}") from error


@cache
def _index() -> TaskManager:
    """Over 14,000 names; reading them takes ten seconds."""
    return TaskManager()


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, _index().all_tasks, n=5)
    nearest = f"; the nearest are {', '.join(map(repr, close))}" if close else ""
    return f"lm-eval {lm_eval.__version__} has no task {name!r}{nearest}. `lm-eval ls tasks` lists all of them"


def _prepare(name: str, task: Task, model: LM, few_shot: FewShot) -> None:
    _check(name, task, few_shot)
    if isinstance(task, ConfigurableTask):
        _exclude_asked_document(task)
        _leave_room_for_prompt(task, model)


def _check(name: str, task: Task, few_shot: FewShot) -> None:
    """Set the shots of a task, and refuse it where it cannot be asked with them."""
    if getattr(task, "UNSAFE_CODE", False):
        raise InputError(f"task {name!r} runs programs that the model writes; leave it out")
    if task.get_config("num_fewshot") != 0:  # 0 is a task's own decision, as lm-eval has it
        task.set_config("num_fewshot", few_shot.num_fewshot)
    task.set_fewshot_seed(few_shot.seed)
    if isinstance(task, ConfigurableTask):
        _check_shots(name, task)


def _check_shots(name: str, task: ConfigurableTask) -> None:
    num_shots, num_examples = task.get_config("num_fewshot"), len(task.sampler.df)
    if num_shots >= num_examples:
        raise InputError(
            f"task {name!r} has {num_examples} examples to show, too few for {num_shots} shots beside the document "
            "that is asked; set evaluation.num_fewshot lower"
        )


def _exclude_asked_document(task: ConfigurableTask) -> None:
    config, shots = task.config, task.fewshot_cfg
    split = shots.split or config.training_split or config.validation_split or config.test_split
    if split == (config.test_split or config.validation_split):
        shots.split = config.test_split  # what lm-eval compares with to see whether it must exclude the document


def _leave_room_for_prompt(task: ConfigurableTask, model: LM) -> None:
    given = task.get_config("generation_kwargs") or {}
    room = getattr(model, "max_gen_toks", None)
    if room is not None and given.get("max_gen_toks", 0) > model.max_length // 2:
        task.set_config("generation_kwargs", {"max_gen_toks": room}, update=True)


def _spread(num_documents: int, limit: int) -> list[int]:
    number = min(num_documents, limit)
    return [index * num_documents // number for index in range(number)]


def _common_metric(source: TaskSource, tasks: Mapping[str, Task]) -> _Metric:
    metrics = {_main_metric(task) for task in tasks.values()}
    metric = metrics.pop()
    if metrics or (len(tasks) > 1 and not metric.is_mean):
        raise InputError(
            f"{source.name!r} is {len(tasks)} tasks whose metrics have no common mean over documents; name those that "
            f"you want: {', '.join(tasks)}"
        )
    return metric


def _main_metric(task: Task) -> _Metric:
    aggregations = task.aggregation()
    name = next((name for name in _MAIN_METRICS if name in aggregations), next(iter(aggregations)))
    return _Metric(name, aggregations[name] is mean, bool(task.higher_is_better().get(name, True)))


def _result(source: TaskSource, model: LM, found: Mapping[str, Any], metric: _Metric) -> TaskResult:
    documents = _documents(found["samples"], metric)
    scores = {document: float(sample[metric.name]) for document, sample in documents.items()} if metric.is_mean else {}
    values = np.array(list(scores.values()))
    return TaskResult(
        task=source.name,
        metric=metric.name,
        value=float(values.mean()) if metric.is_mean else _aggregate(found, metric),
        standard_error=float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None,
        num_documents=len(documents),
        num_fewshot=max(found["n-shot"][name] or 0 for name in found["samples"]),
        num_truncated=sum(
            isinstance(model, LanguageModel) and model.truncates(sample["arguments"]) for sample in documents.values()
        ),
        higher_is_better=metric.higher_is_better,
        version=", ".join(sorted({str(found["versions"][name]) for name in found["samples"]})),
        prompts_digest=files.digest_json(
            {document: [sample[key] for key in _PROMPT_HASHES] for document, sample in documents.items()}
        ),
        scores=scores,
    )


def _documents(samples: Mapping[str, list[dict[str, Any]]], metric: _Metric) -> dict[str, dict[str, Any]]:
    """lm-eval's records by document, for the first of a task's filters."""
    return {
        (f"{task}/{sample['doc_id']}" if len(samples) > 1 else str(sample["doc_id"])): sample
        for task, records in samples.items()
        for sample in records
        if sample["filter"] == records[0]["filter"] and metric.name in sample
    }


def _aggregate(found: Mapping[str, Any], metric: _Metric) -> float:
    ((task, records),) = found["samples"].items()
    return float(found["results"][task][f"{metric.name},{records[0]['filter']}"])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Some tasks shuffle choices or sample answers with the global generators, which are left as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.is_available())):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
