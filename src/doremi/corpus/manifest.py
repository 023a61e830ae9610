"""``manifest.json``: what a token store holds, and the digest that identifies it. Written last, read first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from doremi import files
from doremi.corpus import indexed
from doremi.errors import InputError, MissingFileError

NAME = "manifest.json"
FORMAT = "doremi-corpus"
IN_PLACE = "doremi-corpus-in-place"  # a folder that refers to a store elsewhere, see `in_place`
VERSION = 1

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")


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


@dataclass(frozen=True)
class TokenizerEntry:
    """The tokenizer that the ids belong to."""

    digest: str
    eos_token: str
    eos_token_id: int
    vocab_size: int


def build(
    *,
    tokenizer: TokenizerEntry,
    dtype: str,
    domains: dict[str, dict[Split, list[ShardEntry]]],
    inputs: Sequence[dict[str, Any]],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The manifest as JSON. ``settings`` and ``inputs`` are a record; they do not enter the digest.

    The digest is that of the content alone (domains, shards, tokenizer), so that the same documents prepared from
    another place, at another time or by another number of workers have the same one.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "dtype": dtype,
        "tokenizer": dict(vars(tokenizer)),
        "domains": [
            {"name": name, **{split: [shard.as_dict() for shard in domains[name].get(split, [])] for split in SPLITS}}
            for name in sorted(domains)
        ],
    }
    return {**content, "digest": content_digest(content), **settings, "inputs": list(inputs)}


def content_digest(manifest: Mapping[str, Any]) -> str:
    """The digest that ``manifest`` should have."""
    parts = ("format", "version", "dtype", "tokenizer", "domains")
    return files.digest_json({key: manifest.get(key) for key in parts})


def read(folder: Path) -> dict[str, Any]:
    """The manifest of the token store in ``folder``, or what refers to a store elsewhere (format `IN_PLACE`).

    Raises:
        MissingFileError: no such folder, or it holds no finished store.
        InputError: the manifest is not one of this format and version.
    """
    path = folder / NAME
    if not path.is_file():
        reason = "it was never prepared, or not to the end" if folder.is_dir() else "there is no such folder"
        raise MissingFileError(f"{folder}: no token store here ({NAME} is missing): {reason}; run doremi prepare")
    content = files.read_json(path)
    if not isinstance(content, dict) or content.get("format") not in (FORMAT, IN_PLACE):
        raise InputError(f'{path}: not the manifest of a token store (no "format": "{FORMAT}")')
    if content.get("version") != VERSION:
        raise InputError(
            f"{path}: format version {content.get('version')!r}, this release reads version {VERSION}; "
            "prepare the corpus again, or use the release that wrote it"
        )
    return content


def shard_entries(domain: dict[str, Any], split: Split) -> list[ShardEntry]:
    """The shards of one domain of a manifest, in the order of its virtual concatenation."""
    return [ShardEntry(**entry) for entry in domain[split]]


def entries(manifest: Mapping[str, Any]) -> dict[tuple[str, Split], list[ShardEntry]]:
    """The shards of every domain and split."""
    return {(domain["name"], split): shard_entries(domain, split) for domain in manifest["domains"] for split in SPLITS}


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
            path = folder / shard.file
            yield ExpectedFile(path.with_name(f"{path.name}.bin"), shard.tokens * itemsize, shard.bin_digest)
            yield ExpectedFile(
                path.with_name(f"{path.name}.idx"), indexed.index_size(shard.documents), shard.idx_digest
            )


def check(folder: Path) -> None:
    """Refuse a store that is not as it was written, as far as that shows without reading it: O(shards).

    Looks at the digest of the manifest and at the size of every file; where ``folder`` refers to a token store
    elsewhere, at those. Saved datasets have neither: opening them finds out what can be found out.

    Raises:
        MissingFileError: no store there, or one of its files is missing.
        InputError: a manifest of another format or that was changed, or a file whose size is not the manifest's.
    """
    content = read(folder)
    if content["format"] == IN_PLACE:
        target = Path(content["store"])
        if (target / NAME).is_file():
            check(target)
        return
    if content_digest(content) != content.get("digest"):
        raise InputError(
            f"{folder / NAME}: was changed after it was written: its digest is not that of its content; restore it, or "
            "prepare the corpus again in an empty folder"
        )
    for file in expected_files(folder, content):
        _check_size(file)


def _check_size(file: ExpectedFile) -> None:
    try:
        size = file.path.stat().st_size
    except FileNotFoundError:
        raise MissingFileError(f"{file.path}: a shard of the corpus is missing; prepare the corpus again") from None
    if size != file.num_bytes:
        raise InputError(
            f"{file.path}: {size} bytes, the manifest says {file.num_bytes}: the shard was cut short or changed; "
            "prepare the corpus again in an empty folder"
        )
