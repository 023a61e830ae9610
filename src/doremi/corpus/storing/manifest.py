"""``manifest.json``: what a token store holds, and the digest that identifies it. Written last, read first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from doremi import files
from doremi.corpus.config import SPLITS, Split
from doremi.corpus.storing import indexed, manifest_schema
from doremi.corpus.tokenizing.tokenizers import TokenizerEntry
from doremi.errors import InputError, MissingFileError
from doremi.files import checked_json

NAME = "manifest.json"
FORMAT = "doremi-corpus"
IN_PLACE = "doremi-corpus-in-place"  # a folder that refers to a store elsewhere, see `in_place`
VERSION = 1
REMEDY = "restore the file from a copy, or prepare the corpus again in an empty folder"


@dataclass(frozen=True)
class ShardEntry:
    """One ``.bin`` and ``.idx`` pair: the documents of one domain and split in one unit of input files."""

    file: str  # relative to the store, without suffix
    documents: int
    tokens: int
    bytes: int  # of UTF-8 text; 0 where it is not known
    bin_digest: str
    idx_digest: str

    def as_dict(self) -> dict[str, Any]:
        """The entry as JSON."""
        return dict(vars(self))


def build(
    *,
    tokenizer: TokenizerEntry,
    dtype: str,
    domains: dict[str, dict[Split, list[ShardEntry]]],
    sets: dict[str, list[ShardEntry]] | None = None,
    inputs: Sequence[dict[str, Any]],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The manifest as JSON. ``settings`` and ``inputs`` are a record; they do not enter the digest.

    The digest is that of the content alone (domains, evaluation sets, shards, tokenizer), so that the same documents
    prepared from another place, at another time or by another number of workers have the same one. Without sets it is
    that of a store of which nobody asked for any.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "dtype": dtype,
        "tokenizer": dict(vars(tokenizer)),
        "domains": [
            {"name": name, **{split: _as_dicts(domains[name].get(split, [])) for split in SPLITS}}
            for name in sorted(domains)
        ],
        **({"sets": [{"name": name, "set": _as_dicts(sets[name])} for name in sorted(sets)]} if sets else {}),
    }
    return {**content, "digest": content_digest(content), **settings, "inputs": list(inputs)}


def _as_dicts(shards: Sequence[ShardEntry]) -> list[dict[str, Any]]:
    return [shard.as_dict() for shard in shards]


def content_digest(manifest: Mapping[str, Any]) -> str:
    """The digest that ``manifest`` should have."""
    parts = ("format", "version", "dtype", "tokenizer", "domains")
    sets = {"sets": manifest["sets"]} if "sets" in manifest else {}  # whose absence is that of older stores
    return files.digest_json({key: manifest.get(key) for key in parts} | sets)


def is_unchanged(manifest: Mapping[str, Any]) -> bool:
    """Whether ``manifest`` has the digest that it should have."""
    try:
        return content_digest(manifest) == manifest.get("digest")
    except ValueError:  # a NaN, or no valid Unicode
        return False


def read(folder: Path) -> dict[str, Any]:
    """The manifest of the token store in ``folder``, or what refers to a store elsewhere (format `IN_PLACE`).

    Raises:
        MissingFileError: no such folder, or it holds no finished store.
        InputError: the manifest is not one of this format and version, or a value in it is missing or of another type.
    """
    path = folder / NAME
    if not path.is_file():
        reason = "it was never prepared, or not to the end" if folder.is_dir() else "there is no such folder"
        raise MissingFileError(f"{folder}: no token store here ({NAME} is missing): {reason}; run doremi prepare")
    content = files.read_json(path)
    if not isinstance(content, dict) or content.get("format") not in (FORMAT, IN_PLACE):
        raise InputError(f'{path}: not the manifest of a token store (no "format": "{FORMAT}")')
    if content.get("version") != VERSION or content["version"] is True:
        raise InputError(
            f"{path}: format version {content.get('version')!r}, this release reads version {VERSION}; "
            "prepare the corpus again, or use the release that wrote it"
        )
    if content["format"] == IN_PLACE:
        checked_json.check(content, manifest_schema.InPlace, source=path, remedy=REMEDY)
        _check_end(folder, content)
        return content
    try:
        checked_json.check(content, manifest_schema.Manifest, source=path, remedy=REMEDY)
    except InputError:
        _check_digest(folder, content)  # says more: it was right once
        raise
    return content


def _check_end(folder: Path, content: dict[str, Any]) -> None:
    """Whether folders that refer to each other come to an end."""
    seen = {folder.resolve()}
    while content.get("format") == IN_PLACE:
        target = Path(content["store"])
        if target.resolve() in seen:
            raise InputError(f"{folder / NAME}: refers to a store that refers back to it; {REMEDY}")
        seen.add(target.resolve())
        content = files.read_json(target / NAME) if (target / NAME).is_file() else {}
        if not (isinstance(content, dict) and isinstance(content.get("store"), str)):
            return


def shard_entries(domain: dict[str, Any], split: Split) -> list[ShardEntry]:
    """The shards of one domain or evaluation set of a manifest, in the order of its virtual concatenation."""
    return [ShardEntry(**entry) for entry in domain[split]]


def entries(manifest: Mapping[str, Any]) -> dict[tuple[str, Split], list[ShardEntry]]:
    """The shards of every domain and split, and then of every evaluation set."""
    of_domains = {
        (domain["name"], split): shard_entries(domain, split) for domain in manifest["domains"] for split in SPLITS
    }
    of_sets: dict[tuple[str, Split], list[ShardEntry]] = {
        (part["name"], "set"): shard_entries(part, "set") for part in manifest.get("sets", [])
    }
    return of_domains | of_sets


class ExpectedFile(NamedTuple):
    """A file of tokens or an index, as the manifest says it is."""

    path: Path
    num_bytes: int
    digest: str


def expected_files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[ExpectedFile]:
    """Every file of tokens and every index that ``manifest``, that of ``folder``, lists."""
    itemsize = indexed.little_endian(manifest["dtype"]).itemsize
    for shards in entries(manifest).values():
        for shard in shards:
            place = folder / shard.file
            yield ExpectedFile(place.with_name(f"{place.name}.bin"), shard.tokens * itemsize, shard.bin_digest)
            yield ExpectedFile(
                place.with_name(f"{place.name}.idx"), indexed.index_size(shard.documents), shard.idx_digest
            )


def check(folder: Path) -> None:
    """Refuse a store that is not as it was written, as far as that shows without reading it: O(shards).

    Looks at the digest of the manifest, at the size of every file and into every index; where ``folder`` refers to a
    token store elsewhere, at those. Saved datasets have neither: opening them finds out what can be found out.

    Raises:
        MissingFileError: no store there, or one of its files is missing.
        InputError: a manifest of another format or that was changed, a file whose size is not the manifest's, or an
            index that is not one of its shard.
    """
    content = read(folder)
    if content["format"] == IN_PLACE:
        target = Path(content["store"])
        if (target / NAME).is_file():
            check(target)
        return
    _check_digest(folder, content)
    itemsize = indexed.little_endian(content["dtype"]).itemsize
    for shards in entries(content).values():
        for shard in shards:
            place = f"{folder}/{shard.file}"  # 30,000 paths as objects of pathlib would take half a second
            _check_size(f"{place}.bin", shard.tokens * itemsize)
            _check_size(f"{place}.idx", indexed.index_size(shard.documents))
            indexed.check_index(
                f"{place}.idx", dtype=content["dtype"], num_documents=shard.documents, num_tokens=shard.tokens
            )


def _check_digest(folder: Path, content: Mapping[str, Any]) -> None:
    if not is_unchanged(content):
        raise InputError(
            f"{folder / NAME}: was changed after it was written: its digest is not that of its content; restore it, or "
            "prepare the corpus again in an empty folder"
        )


def _check_size(path: str, num_bytes: int) -> None:
    try:
        size = os.stat(path).st_size  # noqa: PTH116
    except FileNotFoundError:
        raise MissingFileError(f"{path}: a shard of the corpus is missing; prepare the corpus again") from None
    if size != num_bytes:
        raise InputError(
            f"{path}: {size} bytes, the manifest says {num_bytes}: the shard was cut short or changed; "
            "prepare the corpus again in an empty folder"
        )
