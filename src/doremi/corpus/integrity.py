"""Rereads a whole store and compares it with its manifest: what opening does not do, because it may be terabytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from doremi import files
from doremi.corpus import indexed, manifest, tokenizers
from doremi.corpus.arrow_store import ArrowStore
from doremi.corpus.store import TOKENIZER_FOLDER, TokenStore
from doremi.errors import InputError


class Fault(NamedTuple):
    """A file of a store that is not what the manifest says."""

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def verify(path: str | Path) -> list[Fault]:
    """Every missing, truncated or changed file of a store; none if all its bytes are what was written.

    Of saved datasets that are read in place, every file with token ids outside the vocabulary.

    Reads everything once, at the speed of the disk.

    Raises:
        MissingFileError: there is no finished store.
        InputError: the manifest itself cannot be read.
    """
    folder = Path(path)
    content = manifest.read(folder)
    if content["format"] == manifest.IN_PLACE:
        return _faults_elsewhere(folder)
    if manifest.content_digest(content) != content.get("digest"):  # then it says nothing about the other files either
        return [Fault(folder / manifest.NAME, "was changed: its digest is not that of its content")]
    return [*_tokenizer_faults(folder, content), *_shard_faults(folder, content)]


def _faults_elsewhere(folder: Path) -> list[Fault]:
    """Of the store that ``folder`` refers to. Saved datasets have no digests: their ids must be in the vocabulary."""
    try:
        store = TokenStore.open(folder)
    except InputError as error:
        return [Fault(folder / manifest.NAME, str(error))]
    if not isinstance(store, ArrowStore):
        return verify(store.path)
    return [Fault(path, "token ids outside the vocabulary") for path in store.files_with_foreign_ids()]


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
    expected = list(_expected_files(folder, content))
    total = sum(size for _, size, _ in expected)
    with tqdm(total=total, desc="verify", unit="B", unit_scale=True, leave=False, disable=None) as progress:
        for path, size, digest in expected:
            problem = _problem(path, size, digest)
            if problem is not None:
                yield Fault(path, problem)
            progress.update(size)


def _expected_files(folder: Path, content: dict[str, Any]) -> Iterator[tuple[Path, int, str]]:
    """(path, bytes, digest) of every file of tokens and every index."""
    itemsize = indexed.little_endian(content["dtype"]).itemsize
    for shards in manifest.entries(content).values():
        for shard in shards:
            yield folder / f"{shard.file}.bin", shard.tokens * itemsize, shard.bin_digest
            yield folder / f"{shard.file}.idx", indexed.index_size(shard.documents), shard.idx_digest


def _problem(path: Path, size: int, digest: str) -> str | None:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != size:
        return f"{path.stat().st_size} bytes, the manifest says {size}"
    return None if files.digest_file(path) == digest else "its content changed: the digest is not the manifest's"
