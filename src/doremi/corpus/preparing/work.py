"""``work/``: what a preparation in progress has finished. Whatever is in it is whole, because it was renamed there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt

from doremi import files
from doremi.corpus.config import Split
from doremi.corpus.preparing.encode import Encoded
from doremi.corpus.reading.grouping import UNIT_BYTES, Unit
from doremi.corpus.reading.inputs import Commits, InputFile, pinned_commits
from doremi.corpus.reading.split import HeldOutRule, read_hashes
from doremi.corpus.storing import manifest_schema
from doremi.errors import InputError, RunFailedError
from doremi.files import checked_json


@dataclass(frozen=True)
class Failure:
    """Why a task on another machine could not do its share."""

    is_input_error: bool
    message: str

    @classmethod
    def of(cls, error: InputError | RunFailedError) -> Failure:
        """What there is to say about ``error``."""
        return cls(isinstance(error, InputError), str(error))

    def write(self, store: Path, rank: int) -> None:
        """Leave it for whoever puts the job of ``store`` together."""
        files.write_json(store / "work" / "failed" / f"{rank:05d}.json", dict(vars(self)))

    def as_error(self, *, others: int) -> InputError | RunFailedError:
        """The error again, with the number of other tasks that failed."""
        kind = InputError if self.is_input_error else RunFailedError
        return kind(f"{self.message} (and {others} more tasks failed)" if others else self.message)


class _Plan(checked_json.Part):
    config: str
    unit_bytes: NonNegativeInt | None = None  # absent in plans of older releases
    inputs: list[Annotated[list[Any], Field(min_length=1)]]
    commits: dict[str, str]


class _Written(checked_json.Part):
    domain: str
    split: Split
    entry: manifest_schema.Shard


class _Input(checked_json.Part):
    name: str
    short_name: str
    skipped: dict[str, NonNegativeInt]


class _Finished(checked_json.Part):
    inputs: list[_Input]
    encoded_by: str
    shards: list[_Written]


class _Failed(checked_json.Part):
    is_input_error: bool
    message: str


class WorkFolder:
    """The plan of a preparation, the hashes of documents that are evaluated on and a marker for each finished unit."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._folder = store / "work"

    def exists(self) -> bool:
        """Whether a preparation is in progress, or was killed."""
        return self._folder.exists()

    def claim(self, config_digest: str, inputs: Sequence[InputFile]) -> None:
        """Write the plan, or check that the one already there was made for the same settings and the same files.

        Removes what a killed process left half-written; nothing that was renamed to its name is.

        Raises:
            InputError: it was not; going on would mix two corpora.
        """
        files.remove_partial(self._store)
        if not self._plan.is_file():
            files.write_json(self._plan, _plan(config_digest, inputs, UNIT_BYTES))
        elif (difference := self.difference(config_digest, inputs)) is not None:
            raise InputError(
                f"{self._store}: a preparation was begun here with {difference} and not finished; delete the folder to "
                "start afresh, or use another one"
            )

    def has_only_a_plan(self) -> bool:
        """Whether nothing is lost by starting anew: no unit is encoded and no job of a cluster was submitted."""
        return self._plan.is_file() and {path.name for path in self._folder.iterdir()} <= {"plan.json", "hashes"}

    def difference(self, config_digest: str, inputs: Sequence[InputFile]) -> str | None:
        """What makes the plan another one than that for these settings and files, if anything does."""
        begun = self._read_plan()
        if begun["config"] != config_digest:
            return "other settings"
        if begun.get("unit_bytes") is None:  # then its markers are those of single files
            return "an older release of doremi"
        if begun == _plan(config_digest, inputs, begun["unit_bytes"]):
            return None
        before, now = ({str(item): item[0] for item in listed} for listed in (begun["inputs"], _listed(inputs)))
        both = before | now
        different = [name for item, name in both.items() if item not in before or item not in now]
        names = list(dict.fromkeys(different or both.values()))  # all of them, where only their order is another
        return f"other inputs ({', '.join(names[:3])}{' and more' if len(names) > 3 else ''})"

    def commits(self) -> Commits:
        """The commits of datasets of the hub that the preparation was begun with."""
        return dict(self._read_plan()["commits"]) if self._plan.is_file() else {}

    def unit_bytes(self) -> int:
        """The size of a unit that the preparation was begun with."""
        begun = self._read_plan().get("unit_bytes") if self._plan.is_file() else None
        return UNIT_BYTES if begun is None else int(begun)

    def is_finished(self, ordinal: int) -> bool:
        """Whether unit number ``ordinal`` has its marker."""
        return self._marker(ordinal).is_file()

    def finish(self, ordinal: int, unit: Unit, encoded: Encoded, *, encoded_by: str) -> None:
        """Write the marker of a unit; its shards must be in place. ``encoded_by``: library and version."""
        shards = [{"domain": s.domain, "split": s.split, "entry": s.entry.as_dict()} for s in encoded.shards]
        inputs = [
            {"name": file.name, "short_name": file.short_name, "skipped": dict(sorted(skipped.items()))}
            for file, skipped in zip(unit.files, encoded.skipped, strict=True)
        ]
        files.write_json(self._marker(ordinal), {"inputs": inputs, "encoded_by": encoded_by, "shards": shards})

    def marker(self, ordinal: int) -> dict[str, Any]:
        """What `finish` wrote: inputs (name, short_name, skipped), encoded_by, shards."""
        path = self._marker(ordinal)
        content: dict[str, Any] = checked_json.read(path, _Finished, remedy="delete the file to read its inputs again")
        return content

    def domains(self, ordinal: int) -> set[str]:
        """Domains that unit number ``ordinal`` has documents of; none of an evaluation set's."""
        return {shard["domain"] for shard in self.marker(ordinal)["shards"] if shard["split"] != "set"}

    def hashes(self, ordinal: int, unit: Unit) -> Path:
        """Where the content hashes of a unit lie that is evaluated on as a whole, once it was read for them."""
        return self._folder / "hashes" / ("sets" if unit.evaluation_set is not None else "") / f"{ordinal:05d}.u64"

    def rule(self, held_out_fraction: float) -> HeldOutRule:
        """The split, once all units that are evaluated on have their hashes: training must not see what they hold."""
        held_out, of_sets = (read_hashes(sorted(self._folder.glob(f"hashes/{place}*.u64"))) for place in ("", "sets/"))
        return HeldOutRule(held_out_fraction, held_out, of_sets)

    def remove(self) -> None:
        """Everything is in the manifest now."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def num_finished(self) -> int:
        """Units that have their marker."""
        return sum(1 for _ in self._folder.glob("finished/*.json"))

    def failures(self) -> list[Failure]:
        """What tasks left that could not do their share, by rank."""
        paths = sorted(self._folder.glob("failed/*.json"))
        read = (checked_json.read(path, _Failed, remedy="delete the file and run this again") for path in paths)
        return [Failure(content["is_input_error"], content["message"]) for content in read]

    def forget_failures(self) -> None:
        """Before tasks try again."""
        shutil.rmtree(self._folder / "failed", ignore_errors=True)

    def _read_plan(self) -> dict[str, Any]:
        remedy = f"delete {self._store} to start afresh"
        plan: dict[str, Any] = checked_json.read(self._plan, _Plan, remedy=remedy)
        return plan

    @property
    def _plan(self) -> Path:
        return self._folder / "plan.json"

    def _marker(self, ordinal: int) -> Path:
        return self._folder / "finished" / f"{ordinal:05d}.json"


def _plan(config_digest: str, inputs: Sequence[InputFile], unit_bytes: int) -> dict[str, Any]:
    commits = dict(pinned_commits(inputs))
    return {"config": config_digest, "unit_bytes": unit_bytes, "inputs": _listed(inputs), "commits": commits}


def _listed(inputs: Sequence[InputFile]) -> list[list[Any]]:
    return [[file.name, file.stats()] for file in inputs]
