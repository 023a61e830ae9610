"""The unit of work: one input file read once, its documents routed, tokenised and written. Knows of no other file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from doremi.corpus import indexed
from doremi.corpus.backends import Ids
from doremi.corpus.documents import Chunk, Document, OnBadRecord, read
from doremi.corpus.inputs import InputFile, Kind
from doremi.corpus.manifest import Split
from doremi.corpus.shards import ShardWriter, WrittenShard
from doremi.corpus.split import HeldOutRule
from doremi.corpus.tokenizers import CorpusTokenizer
from doremi.errors import InputError

HELD_OUT_ELSEWHERE = "training document equal to a held-out one"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Encoded:
    """What became of one input file."""

    shards: list[WrittenShard]
    skipped: Counter[str]  # records by reason


def encode_file(
    file: InputFile,
    store: Path,
    *,
    ordinal: int,
    tokenizer: CorpusTokenizer,
    rule: HeldOutRule,
    on_bad_record: OnBadRecord,
    advance: Callable[[Chunk], None] = lambda _: None,
) -> Encoded:
    """Write the shards of input file number ``ordinal``. Idempotent: the same file gives the same bytes, in place.

    Memory, however large the file is: a chunk of about 2 MB of text twice over (one is read while the other is encoded)
    with its encodings, the tokens pending in `ShardWriter` with 4 bytes a document, and the largest document. With the
    libraries and GPT-2's tokenizer a process stays below 500 MB; a test prepares 2 GB so.
    """
    skipped: Counter[str] = Counter()
    with ShardWriter(store, ordinal=ordinal, dtype=indexed.dtype_for(tokenizer.entry.vocab_size)) as writer:
        for chunk in read_ahead(read(file, on_bad_record=on_bad_record)):
            placed = [(document, rule.side(document, file.split)) for document in chunk.documents]
            kept = [(document, side) for document, side in placed if side is not None]
            skipped += chunk.skipped
            skipped[HELD_OUT_ELSEWHERE] += len(placed) - len(kept)
            _write(kept, file, tokenizer, writer)
            advance(chunk)
        return Encoded(writer.finish(), +skipped)


def _write(
    kept: list[tuple[Document, Split]], file: InputFile, tokenizer: CorpusTokenizer, writer: ShardWriter
) -> None:
    texts = [document.content for document, _ in kept if isinstance(document.content, str)]
    encoded = _with_eos(tokenizer.encode(texts), tokenizer.entry.eos_token_id, writer.dtype)
    for document, side in kept:
        if isinstance(document.content, str):
            writer.append(document.domain, side, next(encoded), num_bytes=document.num_bytes)
        else:
            ids = _checked_ids(document, file, tokenizer)
            writer.append(document.domain, side, ids, num_bytes=tokenizer.count_bytes(ids))


def _with_eos(ids: Ids, eos_token_id: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """dtype[n_i + 1] of each text. Copied once: np.append and a cast took 14 us a document, this takes one."""
    start = 0
    for length in ids.lengths.tolist():
        document = np.empty(length + 1, dtype)
        document[:-1] = ids.flat[start : start + length]
        document[-1] = eos_token_id
        start += length
        yield document


def _checked_ids(document: Document, file: InputFile, tokenizer: CorpusTokenizer) -> np.ndarray:
    """int64[n], n > 0: the ids of a document, EOS included, or those of a chunk as they are."""
    ids, eos_token_id = np.asarray(document.content), tokenizer.entry.eos_token_id
    if not 0 <= ids.min() <= ids.max() < tokenizer.entry.vocab_size:
        raise InputError(
            f"{file.name}: token ids from {ids.min()} to {ids.max()} in domain {document.domain!r}, but the vocabulary "
            f"has {tokenizer.entry.vocab_size}; set corpus.tokenizer.path to the tokenizer that made them"
        )
    are_chunks = file.kind is not Kind.READER and file.config.ids_rows == "chunks"
    return ids if are_chunks or ids[-1] == eos_token_id else np.append(ids, eos_token_id)


def read_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, the next one produced in a thread meanwhile: reading overlaps with encoding in Rust."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as executor:
        coming = executor.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = executor.submit(next, iterator, end)
            yield item  # type: ignore[misc]  # `end` was the only other type
