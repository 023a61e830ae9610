"""What a finished training left in its folder, read back: its marker and its log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from doremi import files
from doremi.errors import InputError, RunFailedError
from doremi.files import checked_json
from doremi.models import saved_files

HISTORY, STARTED, LOSSES, FAILED = "history.json", "started.json", "held_out.parquet", "failed.json"
NOT_OF_THE_MODEL = {
    files.MARKER,
    STARTED,
    LOSSES,
    FAILED,
    "tracker.json",
}  # the last: `doremi.training.trackers.IDENTITY`
SERIES = ("held_out_nats/", "dro_weights/", "average_weights/", "excess_losses/")  # logged for all domains or none
REMEDY = "delete its folder and run the same command to train the model again"


class Facts(checked_json.Part):
    """The marker of a finished training, as far as results and costs are made of it."""

    digest: str
    steps: PositiveInt
    num_parameters: PositiveInt
    num_tokens: NonNegativeInt
    train_seconds: float
    epochs: dict[str, float]
    rows: dict[str, int]
    passes: dict[str, float]


class Answer(checked_json.Part):
    """The marker of a finished run with a policy, as far as weights are made of it."""

    objective: dict[str, Any]
    objective_digest: str | None = None  # see `seal`


def facts(folder: Path) -> dict[str, Any]:
    """The marker of a finished training.

    Raises:
        InputError: it is not there, or of another form.
    """
    return checked_json.read(folder / files.MARKER, Facts, remedy=REMEDY)


class _Failure(checked_json.Part):
    failure: str


def failure(folder: Path) -> str | None:
    """Why a run cannot be finished; None: nothing is known against it.

    Raises:
        InputError: what is written of it is of another form.
    """
    path = folder / FAILED
    return checked_json.read(path, _Failure, remedy=REMEDY)["failure"] if path.is_file() else None


def objective_state(folder: Path) -> dict[str, Any]:
    """What the objective of a finished training ended with.

    Raises:
        InputError: the marker is not there, or of another form.
        RunFailedError: it is not the one that was written.
    """
    path = folder / files.MARKER
    content = checked_json.read(path, Answer, remedy=REMEDY)
    expected, digest = content.get("objective_digest"), seal("objective", content["objective"])["objective_digest"]
    if expected not in (None, digest):
        raise RunFailedError(
            f"{path}: its objective is not the one that was written (digest {digest}, expected {expected}). Put back a "
            f"copy, or {REMEDY}"
        )
    return content["objective"]


def seal(key: str, value: Mapping[str, Any]) -> dict[str, str]:
    """What is written beside a value, so that a digit that changed later is seen."""
    return {f"{key}_digest": files.digest_json(dict(value))}


def files_to_read(folder: Path) -> list[Path]:
    """What later stages read of a finished model: all of its weight files, configuration, tokenizer and history."""
    return [
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and path.name not in NOT_OF_THE_MODEL
    ]


def load_history(folder: Path, names: Iterable[str] = ()) -> Sequence[Mapping[str, Any]]:
    """The trainer's log of a finished run: one mapping per log line, each with its ``step``.

    Args:
        folder: of the run.
        names: the domains; an entry with a value of the first one has to have one of each.

    Raises:
        MissingFileError: there is no log.
        InputError: it is of another form.
        RunFailedError: it was changed after training.
    """
    saved_files.check(folder, is_needed=lambda name: name == HISTORY)
    path = folder / HISTORY
    history = checked_json.read(path, list[dict[str, Any]], remedy=REMEDY)
    for number, entry in enumerate(history):
        if problem := _problem(entry, tuple(names)):
            raise InputError(f"{path}: entry {number}: {problem}; {REMEDY}")
    return history


def _problem(entry: Mapping[str, Any], names: Sequence[str]) -> str | None:
    if type(entry.get("step")) is not int:
        return "no step"
    for series in SERIES if names else ():
        if f"{series}{names[0]}" in entry:
            lacking = [name for name in names if type(entry.get(f"{series}{name}")) not in (int, float)]
            if lacking:
                return f"no number {series}{lacking[0]}"
    return None
