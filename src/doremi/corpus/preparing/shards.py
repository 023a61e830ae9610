"""Writes the shards of one unit: a ``.bin`` and ``.idx`` for each domain and split that it has documents of."""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from doremi import files
from doremi.corpus.config import Split
from doremi.corpus.storing import indexed
from doremi.corpus.storing.manifest import ShardEntry

PARTIAL_FOLDER = "work/partial"  # below the store: what a killed preparation leaves there is never trusted
MAX_PENDING_BYTES = 32 << 20  # tokens held in memory before they go to disk, over all domains of a unit


class WrittenShard(NamedTuple):
    """A finished shard and where it belongs."""

    domain: str
    split: Split
    entry: ShardEntry


class ShardWriter:
    """Appends documents to the shards of unit number ``ordinal``; nothing is visible before `finish`.

    Holds at most `MAX_PENDING_BYTES` of tokens and 4 bytes for each document, and one open file however many domains
    there are. Use as a context manager: leaving it without `finish` removes what was written.
    """

    def __init__(self, store: Path, *, ordinal: int, dtype: str) -> None:
        self._store = store
        self._partial = store / PARTIAL_FOLDER / f"{ordinal:05d}"
        self.dtype = indexed.little_endian(dtype)
        self._ordinal, self._dtype_name = ordinal, dtype
        self._shards: dict[tuple[str, Split], _OpenShard] = {}
        self._pending_bytes = 0

    def __enter__(self) -> ShardWriter:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def append(self, domain: str, split: Split, ids: np.ndarray, *, num_bytes: int) -> None:
        """Add one document: its token ids int[n], n > 0, final EOS included, and the size of its text in UTF-8."""
        if (domain, split) not in self._shards:
            path = self._partial / f"{split}.{len(self._shards):05d}.bin"
            self._shards[domain, split] = _OpenShard(path, self.dtype)
        self._pending_bytes += self._shards[domain, split].append(ids, num_bytes)
        if self._pending_bytes >= MAX_PENDING_BYTES:
            self._flush()

    def finish(self) -> list[WrittenShard]:
        """Move every shard to its place in the store, in the order of domains, and say what they hold."""
        self._flush()
        return list(self._finished())

    def _flush(self) -> None:
        for shard in self._shards.values():
            shard.flush()
        self._pending_bytes = 0

    def _finished(self) -> Iterator[WrittenShard]:
        for (domain, split), shard in sorted(self._shards.items()):
            name = f"{split}/{files.encode_name(domain)}/{self._ordinal:05d}"
            index = shard.path.with_suffix(".idx")
            indexed.write_index(index, np.frombuffer(shard.lengths, np.int32), dtype=self._dtype_name)
            entry = ShardEntry(
                file=name,
                documents=len(shard.lengths),
                tokens=sum(shard.lengths),
                bytes=shard.num_bytes,
                bin_digest=shard.digest.hexdigest(),
                idx_digest=files.digest_file(index),
            )
            _move_pair(shard.path, self._store / name)
            yield WrittenShard(domain, split, entry)


class _OpenShard:
    """One ``.bin`` that grows, with what its index will need."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.path = path
        self.lengths = array("i")
        self.num_bytes = 0
        self.digest = xxhash.xxh3_128()
        self._dtype = dtype
        self._pending: list[np.ndarray] = []

    def append(self, ids: np.ndarray, num_bytes: int) -> int:
        """Keep a document for the next flush; returns the bytes that it takes in memory."""
        tokens = ids.astype(self._dtype, copy=False)
        self._pending.append(tokens)
        self.lengths.append(len(tokens))
        self.num_bytes += num_bytes
        return tokens.nbytes

    def flush(self) -> None:
        if not self._pending:
            return
        data = np.concatenate(self._pending).data
        self.digest.update(data)
        with self.path.open("ab") as file:
            file.write(data)
        self._pending.clear()


def _move_pair(written: Path, target: Path) -> None:
    """Rename ``written`` and its index to ``target``'s two names, so that they outlast a power cut once marked."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".idx", ".bin"):
        files.fsync(written.with_suffix(suffix))
        written.with_suffix(suffix).replace(target.with_suffix(suffix))
    files.fsync(target.parent)
