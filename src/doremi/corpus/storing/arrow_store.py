"""Upstream's preprocessed folders as a token store: trees of ``datasets.save_to_disk``, read where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from doremi.corpus.config import CorpusConfig, Split
from doremi.corpus.reading.inputs import InputFile, Kind, input_files
from doremi.corpus.storing import arrow_shards, manifest
from doremi.corpus.storing.arrow_shards import ArrowShard
from doremi.corpus.storing.contents import Domains, check_names
from doremi.corpus.storing.manifest import ShardEntry
from doremi.corpus.storing.packing import Packing
from doremi.corpus.storing.store import TokenStore
from doremi.corpus.tokenizing import tokenizers
from doremi.corpus.tokenizing.tokenizers import CorpusTokenizer, TokenizerEntry
from doremi.errors import InputError

IDS_COLUMN = "input_ids"
_UNKNOWN_TOKENIZER = TokenizerEntry(digest="unknown", eos_token="", eos_token_id=-1, vocab_size=2**31 - 1)


class ArrowStore(TokenStore):
    """A tree ``[split/]domain[/shard]`` of saved datasets with token ids; use `open_arrow`.

    Reads what an import with ``ids_rows: chunks`` would store, and copies nothing. A document is a row, of any length;
    a domain is called what its folder is, whatever a column ``domain_id`` says; ``validation`` is held out, ``test`` is
    left out. Unlike an import it does not look for training rows that are held out too, and it believes that all ids
    are within the vocabulary once the first row of each dataset is.
    """

    def __init__(
        self,
        path: Path,
        content: dict[str, Any],
        packing: Packing,
        shards: Mapping[tuple[str, Split], Sequence[ArrowShard]],
        tokenizer: CorpusTokenizer | None,
        tokenizer_path: Path,
        eos_token: str | None,
    ) -> None:
        super().__init__(path, content, packing, shards)
        self._batches = [batch for key in shards for batch in shards[key]]
        self._tokenizer, self._tokenizer_path, self._eos_token = tokenizer, tokenizer_path, eos_token
        self._held_out_bytes = lru_cache(maxsize=None)(self._count_held_out_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self._tokenizer_path, self._eos_token, self.packing)

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer that was named."""
        return self._tokenizer_path

    def num_bytes(self, name: str, *, split: Split = "train") -> int:
        """Bytes of a domain's text in UTF-8: held-out documents are decoded when first asked for, about 10 MB/s. 0, not
        known, for training documents, of which there may be terabytes.
        """
        known = super().num_bytes(name, split=split)
        return self._held_out_bytes(name) if split == "held_out" else known

    def files_with_foreign_ids(self) -> list[Path]:
        """Every Arrow file with ids that are not in the tokenizer's vocabulary. Reads all tokens."""
        found = {batch.file.path for batch in self._batches if not _are_ids(batch.tokens(), self.vocab_size)}
        return sorted(found)

    def _count_held_out_bytes(self, name: str) -> int:
        if self._tokenizer is None:
            return 0
        return sum(self._tokenizer.count_bytes(ids) for ids in self.documents(name, split="held_out"))


def is_tree(path: Path) -> bool:
    """Whether ``path`` is or holds a folder of ``datasets.save_to_disk``; stops at the first one."""
    return path.is_dir() and any(True for _ in path.rglob("dataset_info.json"))


def open_arrow(
    path: str | Path, *, tokenizer: str | Path | None, eos_token: str | None = None, packing: Packing = "pack"
) -> ArrowStore:
    """Open a tree of saved datasets as a token store. O(record batches): the tokens are not read.

    Args:
        path: the folder above the splits, or above the domains.
        tokenizer: folder, ``tokenizer.json`` or hub id of the tokenizer that made the ids; the folders do not name it.
            None: only sizes are asked for, and ids are not checked.
        eos_token: token that ends a document, where the files of the tokenizer do not name one.
        packing: how rows are cut.

    Raises:
        MissingFileError: no such folder or tokenizer, or no saved dataset in the folder.
        InputError: a dataset without token ids, ids that are not the tokenizer's, a damaged file.
    """
    path = Path(path)
    loaded = None if tokenizer is None else tokenizers.load(str(tokenizer), eos_token=eos_token)
    shards: dict[tuple[str, Split], list[ArrowShard]] = {}
    domains: Domains = {}
    for file in _saved_datasets(path):
        folder, name, split = Path(str(file.paths[0])), str(file.domain), file.split or "train"
        found = arrow_shards.arrow_shards(folder, IDS_COLUMN)
        if found:
            if loaded is not None:
                _check_ids(found[0], folder, loaded)
            shards.setdefault((name, split), []).extend(found)
            shard = _entry(folder.relative_to(path).as_posix(), arrow_shards.fingerprint(folder), found)
            domains.setdefault(name, {}).setdefault(split, []).append(shard)
    dtype = _one_dtype(path, [shard.dtype for pieces in shards.values() for shard in pieces])
    check_names(domains)
    entry = _UNKNOWN_TOKENIZER if loaded is None else loaded.entry
    content = manifest.build(tokenizer=entry, dtype=dtype, domains=domains, inputs=[], settings={})
    everything = {key: shards.get(key, []) for key in manifest.entries(content)}
    place = Path(tokenizer or "unknown tokenizer")
    folder = place.parent if place.is_file() else place
    return ArrowStore(path, content, packing, everything, loaded, folder, eos_token)


def _reopen(path: Path, tokenizer: Path, eos_token: str | None, packing: Packing) -> ArrowStore:
    return open_arrow(path, tokenizer=tokenizer, eos_token=eos_token, packing=packing)


def _saved_datasets(path: Path) -> list[InputFile]:
    """The saved datasets below ``path``, each with its domain and split, in the order of an import."""
    found = input_files(CorpusConfig.model_validate({"inputs": [{"path": str(path)}]}))
    other = next((file for file in found if file.kind is not Kind.DATASET), None)
    if other is not None:
        raise InputError(
            f"{other.name}: only folders of datasets.save_to_disk with token ids are read in place; give this one to "
            "corpus.inputs, which prepares it"
        )
    return found


def _check_ids(shard: ArrowShard, folder: Path, tokenizer: CorpusTokenizer) -> None:
    first_row = shard.tokens()[: shard.document_lengths()[0]]
    if not _are_ids(first_row, tokenizer.entry.vocab_size):
        raise InputError(
            f"{folder}: token ids from {first_row.min()} to {first_row.max()} in its first row, but the vocabulary has "
            f"{tokenizer.entry.vocab_size}; name the tokenizer that made them"
        )


def _are_ids(tokens: np.ndarray, vocab_size: int) -> bool:
    return bool(tokens.min() >= 0 and tokens.max() < vocab_size)


def _entry(file: str, fingerprint: str, found: Sequence[ArrowShard]) -> ShardEntry:
    return ShardEntry(
        file=file,
        documents=sum(len(shard.document_lengths()) for shard in found),
        tokens=sum(shard.num_tokens for shard in found),
        bytes=0,
        bin_digest=fingerprint,
        idx_digest="",
    )


def _one_dtype(path: Path, dtypes: Sequence[str]) -> str:
    different = sorted(set(dtypes))
    if not different:
        raise InputError(f"{path}: its datasets hold no token")
    if len(different) > 1:
        raise InputError(
            f"{path}: token ids are stored as {' and '.join(different)} in different datasets; give the folder to "
            "corpus.inputs, which makes them one type"
        )
    return different[0]
