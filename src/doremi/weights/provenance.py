"""What a weights file of ours says of its origin, in words. The file may be anybody's: what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from doremi import files
from doremi.errors import InputError
from doremi.text import visible
from doremi.weights.alarm import Alarm


class Rounds(BaseModel):
    """How the iteration went."""

    status: str
    changes: list[float]


class Provenance(BaseModel):
    """The keys of ``provenance`` that are shown; all may be absent, others are ignored."""

    rule: str | None = None
    corpus_digest: str | None = None
    rounds: Rounds | None = None
    by_seed: dict[str, dict[str, float]] = {}
    spread: dict[str, float] | None = None
    alarms: list[Alarm] = []


def read(path: str | Path) -> Provenance:
    """The provenance of a weights file; empty where it has none.

    Raises:
        MissingFileError: there is no such file.
        InputError: it is not JSON, or its provenance has another form.
    """
    content = files.read_json(Path(path))
    found = content.get("provenance") if isinstance(content, dict) else None
    try:
        # a plain {name: weight} file may have a domain called provenance
        return Provenance() if found is None or isinstance(found, int | float) else Provenance.model_validate(found)
    except ValidationError as error:
        key = ".".join(map(str, ("provenance", *error.errors()[0]["loc"])))
        raise InputError(f"{path}: {visible(key)}: {error.errors()[0]['msg']}; remove `provenance` to use it") from None


def describe(provenance: Provenance) -> list[str]:
    """One line a fact, fit for a terminal; a line for each alarm, with its remedy."""
    lines = []
    if provenance.rule is not None:
        lines.append(f"rule: {provenance.rule}, for the corpus of digest {provenance.corpus_digest}")
    if provenance.rounds is not None:
        changes = ", ".join(f"{change:.4f}" for change in provenance.rounds.changes)
        lines.append(f"rounds: {provenance.rounds.status}; largest change of each {changes}")
    if spread := provenance.spread:
        name = max(spread, key=lambda key: spread[key])
        lines.append(f"± standard deviation over {len(provenance.by_seed)} proxies, at most {spread[name]:.4f}: {name}")
    lines += [f"{alarm.name}: {alarm.finding}. What to do: {alarm.remedy}" for alarm in provenance.alarms]
    return [visible(line) for line in lines]
