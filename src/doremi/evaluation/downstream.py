"""Few-shot tasks through lm-evaluation-harness, which is optional: ``pip install 'doremi-mixture[eval]'``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from doremi import files
from doremi.errors import InputError, MissingFileError, install_hint
from doremi.evaluation import task_results
from doremi.evaluation.few_shot import FewShot
from doremi.evaluation.task_results import TaskResult
from doremi.evaluation.task_sources import TaskSource, resolve

logger = logging.getLogger(__name__)

# what from_pretrained reads; training writes other files beside them
_MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors*")
_TOKENIZER_FILES = ("tokenizer*", "*.model", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt")


def evaluate_tasks(
    model_folder: Path, tasks: Sequence[str], *, results: Path, batch_size: int, few_shot: FewShot | None = None
) -> dict[str, TaskResult]:
    """Let one model do few-shot tasks, in float32; what was done before, of the same model and settings, is read.

    Args:
        model_folder: any Hugging Face causal LM with its tokenizer.
        tasks: see `task_sources.resolve`; ``["paper"]`` for the paper's five.
        results: folder of this model's results, one file a task, written when the task is done. They do not notice new
            data of a task on the Hugging Face Hub: delete them to ask it again.
        batch_size: prompts per forward pass; changes no score.
        few_shot: one shot and all documents if not given.

    Returns:
        Results by task, in the order asked for.

    Raises:
        MissingFileError: there is no such model or YAML file.
        InputError: lm-eval is not installed, does not know a task or cannot get its data.
    """
    few_shot = few_shot or FewShot()
    sources = resolve(tasks)
    keys = _keys(model_folder, sources, few_shot)
    found = {source: task_results.read(results, source.name, key=keys[source]) for source in sources}
    missing = [source for source, result in found.items() if result is None]
    if missing:
        from doremi.evaluation import harness, language_model

        model = language_model.load(model_folder, batch_size=batch_size)
        for source in missing:
            logger.info("%s: task %s, %d shot", model_folder, source.name, few_shot.num_fewshot)
            result = found[source] = harness.evaluate(model, source, few_shot=few_shot)
            task_results.write(results, result, key=keys[source])
    return {source.name: result for source, result in found.items() if result is not None}


def check_tasks(tasks: Sequence[str], *, num_fewshot: int = 1) -> None:
    """What can be known before models are trained: that lm-eval is there, knows the tasks, has their data and
    enough examples to show.

    Raises:
        MissingFileError: there is no such YAML file.
        InputError: as `evaluate_tasks`.
    """
    if sources := resolve(tasks):
        _version()
        from doremi.evaluation import harness

        for source in sources:
            harness.check(source, few_shot=FewShot(num_fewshot=num_fewshot))


def _keys(model_folder: Path, sources: Sequence[TaskSource], few_shot: FewShot) -> dict[TaskSource, str]:
    """Of everything that a result depends on."""
    shared = {"model": model_digest(model_folder), "lm_eval": _version(), **asdict(few_shot)}
    return {source: files.digest_json({**shared, "task": source.digest()}) for source in sources}


def model_digest(folder: Path) -> str:
    """Of the files that a model and its tokenizer are loaded from.

    Raises:
        MissingFileError: there is no model.
    """
    if not (folder / "config.json").is_file():
        raise MissingFileError(f"{folder}: no model there (no config.json)")
    paths = {path for pattern in _MODEL_FILES + _TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()}
    return files.digest_json({path.name: files.digest_file(path) for path in paths})


def _version() -> str:
    try:
        return version("lm_eval")
    except PackageNotFoundError:
        raise InputError(f"few-shot tasks need lm-eval, which is not installed: {install_hint('eval')}") from None
