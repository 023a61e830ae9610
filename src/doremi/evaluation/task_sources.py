"""Names of few-shot tasks: lm-eval's own, the paper's five under one name, and local YAML files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doremi import files
from doremi.errors import InputError, MissingFileError
from doremi.files import yaml_files

# Section 3.1 of the paper: one-shot, exact match. WebQuestions and LAMBADA are scored by whether the answer is what
# greedy decoding gives, which is the same question.
PAPER_TASKS = ("triviaqa", "nq_open", "webqs", "squadv2", "lambada_openai")
PAPER = "paper"

_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class TaskSource:
    """One task, group or tag of lm-eval by name, or a local task with the YAML file that defines it."""

    name: str
    path: Path | None = None

    def digest(self) -> str:
        """Of the name, or of all files beside the YAML file: what it includes, its functions and its data lie there."""
        if self.path is None:
            return files.digest_json(self.name)
        beside = (path for path in sorted(self.path.parent.iterdir()) if path.is_file())
        return files.digest_json({path.name: files.digest_file(path) for path in beside})


def resolve(tasks: Sequence[str]) -> list[TaskSource]:
    """The tasks that are meant, each once, without looking anything up in lm-eval.

    Args:
        tasks: ``paper``; a task, group or tag of lm-eval; a YAML file in lm-eval's format; or a folder of them (written
            with a ``/``), which stands for every task below it.

    Raises:
        MissingFileError: there is no such file or folder.
        InputError: a file defines no task, a folder has none, or two tasks have the same name.
    """
    sources = list(dict.fromkeys(source for entry in tasks for source in _sources(entry)))
    by_name: dict[str, TaskSource] = {}
    for source in sources:
        if (other := by_name.setdefault(source.name, source)) is not source:
            raise InputError(
                f"two tasks are called {source.name!r}: {_origin(other)} and {_origin(source)}; results are kept by "
                "name, so rename one (`task:` in its YAML file) or leave it out"
            )
    return sources


def _sources(entry: str) -> list[TaskSource]:
    if entry == PAPER:
        return [TaskSource(name) for name in PAPER_TASKS]
    if not entry.endswith(_SUFFIXES) and os.sep not in entry:
        return [TaskSource(entry)]
    path = Path(entry)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise MissingFileError(f"task {entry!r}: no such file or folder; a task of lm-eval is named without a path")
    config = _load(path)
    name = config.get("task") if isinstance(config.get("task"), str) else config.get("group")
    if not isinstance(name, str):
        raise InputError(f"{path}: defines no task; a file in lm-eval's format has `task: <name>`")
    return [TaskSource(name, path)]


def _folder(folder: Path) -> list[TaskSource]:
    """Every task below; files that others include have no ``task:``."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    found = [(config.get("task"), path) for path in paths for config in [_load(path)]]
    sources = [TaskSource(name, path) for name, path in found if isinstance(name, str)]
    if not sources:
        raise InputError(f"{folder}: no task in it; a YAML file in lm-eval's format has `task: <name>`")
    return sources


class _Loader(yaml_files.LimitedLoader):
    """Reads lm-eval's files without importing the functions that they name."""


_Loader.add_constructor("!function", lambda loader, node: None)


def _load(path: Path) -> dict[str, Any]:
    config = yaml_files.read(path, loader=_Loader)
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected a task in lm-eval's format, `task: <name>` and its other keys")
    return config


def _origin(source: TaskSource) -> str:
    return "lm-eval's own" if source.path is None else str(source.path)
