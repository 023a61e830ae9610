"""What a finished training left in its folder, read back: its marker and its log; and DoReMi's answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt

from doremi import files
from doremi.errors import InputError, RunFailedError
from doremi.files import checked_json
from doremi.models import saved_files
from doremi.weights import DomainWeights

HISTORY, STARTED, LOSSES, FAILED = "history.json", "started.json", "held_out.parquet", "failed.json"
NOT_OF_THE_MODEL = {
    files.MARKER,
    STARTED,
    LOSSES,
    FAILED,
    "tracker.json",
}  # the last: `doremi.training.trackers.IDENTITY`
SERIES = ("held_out_nats/", "dro_weights/", "average_weights/", "excess_losses/")  # logged for all domains or none
ANSWER_REMEDY = "`doremi train RECIPE --run proxy` writes it anew"
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
    """The marker of a finished proxy, as far as weights are made of it."""

    objective: dict[str, Any]


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
    """
    return checked_json.read(folder / files.MARKER, Answer, remedy=REMEDY)["objective"]


class Rounds(checked_json.Part):
    """How the search for the weights went."""

    status: str | None
    changes: list[float]
    weights: list[dict[str, float]] = Field(min_length=1)


class Search(checked_json.Part):
    """The provenance of DoReMi's weights, as far as results are made of it."""

    rounds: Rounds
    spread: dict[str, float] | None
    alarms: list[dict[str, Any]]


class _WeightsFile(checked_json.Part):
    provenance: Search


def seal(weights: Mapping[str, float]) -> dict[str, str]:
    """What the provenance of weights says so that a digit that changed later is seen; other files do not say it."""
    return {"weights_digest": files.digest_json(dict(weights))}


def answer(path: Path, names: Sequence[str]) -> DomainWeights:
    """DoReMi's weights, from ``weights.json``.

    Args:
        path: of the file.
        names: the domains that they have to be weights of; one that is left out has none.

    Raises:
        MissingFileError: there is no such file.
        InputError: it is of another form, or of other domains.
        RunFailedError: its weights are not those that were written.
    """
    weights = DomainWeights.from_json(path)
    if not set(weights) <= set(names):
        raise InputError(f"{path}: weights of other domains than those of the recipe; {ANSWER_REMEDY}")
    content = files.read_json(path)
    provenance = content.get("provenance")
    expected = provenance.get("weights_digest") if isinstance(provenance, dict) else None
    digest = seal(content.get("train_domain_weights", content))["weights_digest"]
    if expected not in (None, digest):
        raise RunFailedError(
            f"{path}: its weights are not those that were written (digest {digest}, expected {expected}). Put back a "
            f"copy, or {ANSWER_REMEDY}"
        )
    return weights


def search(path: Path) -> dict[str, Any]:
    """How DoReMi's weights were found: the provenance in ``weights.json``.

    Raises:
        MissingFileError: there is no such file.
        InputError: it is of another form.
    """
    return checked_json.read(path, _WeightsFile, remedy=ANSWER_REMEDY)["provenance"]


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
