"""``work/``: what a preparation in progress has finished. Whatever is in it is whole, because it was renamed there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doremi import files
from doremi.corpus.encode import Encoded
from doremi.corpus.inputs import InputFile
from doremi.corpus.split import read_hashes, write_hashes
from doremi.errors import InputError


class WorkFolder:
    """The plan of a preparation, the hashes of held-out documents and a marker for each finished input file."""

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
        for leftover in self._store.rglob(".*.partial"):
            leftover.unlink()
        path = self._folder / "plan.json"
        plan = {"config": config_digest, "inputs": [[file.name, file.stats()] for file in inputs]}
        if not path.is_file():
            files.write_json(path, plan)
            return
        begun = files.read_json(path)
        if begun == plan:
            return
        changed = [file.name for file in inputs if [file.name, file.stats()] not in begun["inputs"]]
        what = f"other inputs ({', '.join(changed[:3])})" if begun["config"] == config_digest else "other settings"
        raise InputError(
            f"{self._store}: a preparation was begun here with {what} and not finished; delete the folder to "
            "start afresh, or use another one"
        )

    def is_finished(self, ordinal: int) -> bool:
        """Whether input file number ``ordinal`` has its marker."""
        return self._marker(ordinal).is_file()

    def finish(self, ordinal: int, file: InputFile, encoded: Encoded, *, encoded_by: str) -> None:
        """Write the marker of an input file; its shards must be in place. ``encoded_by``: library and version."""
        shards = [{"domain": s.domain, "split": s.split, "entry": s.entry.as_dict()} for s in encoded.shards]
        skipped = dict(sorted(encoded.skipped.items()))
        content = {"name": file.name, "skipped": skipped, "encoded_by": encoded_by, "shards": shards}
        files.write_json(self._marker(ordinal), content)

    def marker(self, ordinal: int) -> dict[str, Any]:
        """What `finish` wrote: name, skipped, encoded_by, shards."""
        content: dict[str, Any] = files.read_json(self._marker(ordinal))
        return content

    def domains(self, ordinal: int) -> set[str]:
        """Domains that input file number ``ordinal`` has documents of."""
        return {shard["domain"] for shard in self.marker(ordinal)["shards"]}

    def has_hashes(self, ordinal: int) -> bool:
        """Whether the held-out input file was read for its hashes."""
        return self._hashes(ordinal).is_file()

    def write_hashes(self, ordinal: int, hashes: Sequence[int]) -> None:
        """Keep the content hashes of a held-out input file."""
        write_hashes(self._hashes(ordinal), hashes)

    def held_out_hashes(self) -> np.ndarray:
        """Sorted uint64[n]: the contents that training must not see."""
        return read_hashes(sorted(self._folder.glob("hashes/*.u64")))

    def remove(self) -> None:
        """Everything is in the manifest now."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _marker(self, ordinal: int) -> Path:
        return self._folder / "finished" / f"{ordinal:05d}.json"

    def _hashes(self, ordinal: int) -> Path:
        return self._folder / "hashes" / f"{ordinal:05d}.u64"
