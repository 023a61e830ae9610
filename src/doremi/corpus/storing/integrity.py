"""Rereads a whole store and compares it with its manifest: what opening does not do, because it may be terabytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from doremi import files
from doremi.corpus.config import SPLITS
from doremi.corpus.storing import manifest
from doremi.corpus.storing.arrow_store import ArrowStore
from doremi.corpus.storing.manifest import ExpectedFile
from doremi.corpus.storing.store import TOKENIZER_FOLDER, TokenStore
from doremi.corpus.tokenizing import tokenizers
from doremi.errors import InputError
from doremi.launch import progress


class Fault(NamedTuple):
    """A file of a store that is not what the manifest says."""

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


@dataclass(frozen=True)
class Verification:
    """What rereading a store found."""

    faults: list[Fault]
    assurance: str  # what was compared with what: all that can be said where there is no fault


def verify(path: str | Path) -> Verification:
    """Find every missing, truncated or changed file of a store: there is none if all its bytes are what was written.

    Saved datasets that are read in place have no digests of their bytes. Of them it finds what `datasets` and the
    folder that refers to them know (see ``assurance``), and every file with token ids outside the vocabulary.

    Reads everything once, at the speed of the disk.

    Raises:
        MissingFileError: there is no finished store.
        InputError: the manifest itself cannot be read.
    """
    folder = Path(path)
    content = manifest.read(folder)
    if content["format"] == manifest.IN_PLACE:
        return _verify_elsewhere(folder, content)
    if not manifest.is_unchanged(content):  # then it says nothing about the other files either
        return Verification([Fault(folder / manifest.NAME, "was changed: its digest is not that of its content")], "")
    expected = list(manifest.expected_files(folder, content))
    faults = [*_tokenizer_faults(folder, content), *_shard_faults(expected)]
    megabytes = sum(file.num_bytes for file in expected) / 1e6
    of_sets = f", those of {len(sets):,} evaluation sets among them," if (sets := content.get("sets")) else ""
    assurance = (
        f"every file is as it was written: the manifest, the tokenizer and {len(expected):,} files of tokens and "
        f"indices ({megabytes:,.1f} MB){of_sets} have their digests"
    )
    return Verification(faults, assurance)


def _verify_elsewhere(folder: Path, reference: Mapping[str, Any]) -> Verification:
    """Of the store that ``folder`` refers to."""
    target = Path(reference["store"])
    found = verify(target) if (target / manifest.NAME).is_file() else Verification([], "")
    if found.faults:
        return found
    try:
        store = TokenStore.attach(folder)
    except InputError as error:
        return Verification([Fault(folder / manifest.NAME, str(error))], "")
    return _verify_saved_datasets(store) if isinstance(store, ArrowStore) else found


def _verify_saved_datasets(store: ArrowStore) -> Verification:
    faults = [Fault(path, "token ids outside the vocabulary") for path in store.files_with_foreign_ids()]
    num_tokens = sum(store.num_tokens(name, split=split) for name in store.names for split in SPLITS)
    assurance = (
        f"no fault found in the saved datasets of {store.path}: domains, numbers of rows and tokens, and the "
        f"fingerprints that datasets wrote are those of the start; all {num_tokens:,} token ids are within the "
        "vocabulary. There are no digests of their bytes: an id that became another of the vocabulary goes unnoticed"
    )
    return Verification(faults, assurance)


def _tokenizer_faults(folder: Path, content: dict[str, Any]) -> Iterator[Fault]:
    path = folder / TOKENIZER_FOLDER
    try:
        digest = tokenizers.load(str(path)).entry.digest
    except InputError as error:
        yield Fault(path, f"cannot be opened: {error}")
        return
    if digest != content["tokenizer"]["digest"]:
        yield Fault(path, f"another tokenizer (digest {digest}, the manifest says {content['tokenizer']['digest']})")


def _shard_faults(expected: list[ExpectedFile]) -> Iterator[Fault]:
    total = sum(file.num_bytes for file in expected)
    with progress.shown("verify", total=total, unit="bytes", is_size=True) as advance:
        for file in expected:
            problem = _problem(file)
            if problem is not None:
                yield Fault(file.path, problem)
            advance(file.num_bytes)


def _problem(file: ExpectedFile) -> str | None:
    if not file.path.is_file():
        return "missing"
    size = file.path.stat().st_size
    if size != file.num_bytes:
        return f"{size} bytes, the manifest says {file.num_bytes}"
    if files.digest_file(file.path) != file.digest:
        return "its content changed: the digest is not the manifest's"
    return None
