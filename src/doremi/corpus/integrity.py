"""Rereads a whole store and compares it with its manifest: what opening does not do, because it may be terabytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from doremi import files
from doremi.corpus import indexed, manifest, tokenizers
from doremi.corpus.manifest import SPLITS, ShardEntry
from doremi.corpus.store import TOKENIZER_FOLDER
from doremi.errors import InputError


class Fault(NamedTuple):
    """A file of a store that is not what the manifest says."""

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def verify(path: str | Path) -> list[Fault]:
    """Every missing, truncated or changed file of a store; none if all its bytes are what was written.

    Reads everything once, at the speed of the disk.

    Raises:
        MissingFileError: there is no finished store.
        InputError: the manifest itself cannot be read.
    """
    folder = Path(path)
    content = manifest.read(folder)
    return [*_manifest_faults(folder, content), *_tokenizer_faults(folder, content), *_shard_faults(folder, content)]


def _manifest_faults(folder: Path, content: dict[str, Any]) -> Iterator[Fault]:
    if manifest.content_digest(content) != content["digest"]:
        yield Fault(folder / manifest.NAME, "was changed by hand: its digest is not that of its content")


def _tokenizer_faults(folder: Path, content: dict[str, Any]) -> Iterator[Fault]:
    path = folder / TOKENIZER_FOLDER
    try:
        digest = tokenizers.load(str(path)).entry.digest
    except InputError as error:
        yield Fault(path, f"cannot be opened: {error}")
        return
    if digest != content["tokenizer"]["digest"]:
        yield Fault(path, f"another tokenizer (digest {digest}, the manifest says {content['tokenizer']['digest']})")


def _shard_faults(folder: Path, content: dict[str, Any]) -> Iterator[Fault]:
    itemsize = indexed.little_endian(content["dtype"]).itemsize
    shards = [s for domain in content["domains"] for split in SPLITS for s in manifest.shard_entries(domain, split)]
    for shard in tqdm(shards, desc="verify", unit=" shards", leave=False, disable=not sys.stderr.isatty()):
        yield from _faults_of(folder, shard, itemsize)


def _faults_of(folder: Path, shard: ShardEntry, itemsize: int) -> Iterator[Fault]:
    expected = (
        (".bin", shard.tokens * itemsize, shard.bin_digest),
        (".idx", indexed.index_size(shard.documents), shard.idx_digest),
    )
    for suffix, size, digest in expected:
        path = folder / f"{shard.file}{suffix}"
        if not path.is_file():
            yield Fault(path, "missing")
        elif path.stat().st_size != size:
            yield Fault(path, f"{path.stat().st_size} bytes, the manifest says {size}")
        elif files.digest_file(path) != digest:
            yield Fault(path, "its content changed: the digest is not the manifest's")
