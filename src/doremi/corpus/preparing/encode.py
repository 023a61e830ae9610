"""A unit of work: its input files read once, their documents routed, tokenised and written. Knows of no other unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from doremi.corpus.config import Split
from doremi.corpus.preparing.shards import ShardWriter, WrittenShard
from doremi.corpus.reading.batches import Batch, read_unit
from doremi.corpus.reading.documents import TOO_LONG, BadRecordError, Document, OnBadRecord, refused
from doremi.corpus.reading.grouping import Unit
from doremi.corpus.reading.inputs import InputFile, Kind
from doremi.corpus.reading.split import HeldOutRule
from doremi.corpus.storing import indexed
from doremi.corpus.tokenizing.backends import Ids
from doremi.corpus.tokenizing.long_texts import IndivisibleTextError
from doremi.corpus.tokenizing.tokenizers import CorpusTokenizer
from doremi.errors import InputError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Encoded:
    """What became of one unit."""

    shards: list[WrittenShard]
    skipped: list[Counter[str]]  # records by reason, of each file


class _Placed(NamedTuple):
    document: Document
    split: Split
    file: InputFile


def encode_unit(
    unit: Unit,
    store: Path,
    *,
    ordinal: int,
    tokenizer: CorpusTokenizer,
    rule: HeldOutRule,
    on_bad_record: OnBadRecord,
    advance: Callable[[Batch], None] = lambda _: None,
) -> Encoded:
    """Write the shards of unit number ``ordinal``. Idempotent: the same files give the same bytes, in place.

    Memory, however large the files are: a batch of about 2 MB of text twice over (one is read while the other is
    encoded) with its encodings, the tokens pending in `ShardWriter` with 4 bytes a document, and up to ten times the
    longest document, which has `MAX_RECORD_BYTES` at most. With the libraries and GPT-2's tokenizer a process stays
    below 500 MB where documents are below 10 MB; tests prepare 2 GB so, and single documents of 48 MB.
    """
    skipped: list[Counter[str]] = [Counter() for _ in unit.files]
    with ShardWriter(store, ordinal=ordinal, dtype=indexed.dtype_for(tokenizer.entry.vocab_size)) as writer:
        for batch in read_ahead(read_unit(unit, on_bad_record=on_bad_record)):
            kept: list[_Placed] = []
            for number, file, chunk in batch.chunks:
                skipped[number] += chunk.skipped
                kept_here = _place(chunk.documents, file, rule, left_out=skipped[number])
                usable = [placed for placed in kept_here if _is_usable(placed, tokenizer, on_bad_record)]
                skipped[number][TOO_LONG] += len(kept_here) - len(usable)
                kept += usable
            _write(kept, tokenizer, writer)
            advance(batch)
        return Encoded(writer.finish(), [+counts for counts in skipped])


def _place(
    documents: Sequence[Document], file: InputFile, rule: HeldOutRule, *, left_out: Counter[str]
) -> list[_Placed]:
    """The documents that are stored, each with its side; counts the others by reason in ``left_out``."""
    kept = []
    for document in documents:
        side = rule.side(document, file.split)
        if side is None:
            left_out[rule.reason(document) or ""] += 1
        else:
            kept.append(_Placed(document, side, file))
    return kept


def _is_usable(placed: _Placed, tokenizer: CorpusTokenizer, on_bad_record: OnBadRecord) -> bool:
    """Whether the tokenizer can encode it at all; otherwise it is a bad record as any other."""
    if not isinstance(placed.document.content, str):
        return True
    try:
        tokenizer.check_length(placed.document.content)
    except IndivisibleTextError as error:
        if on_bad_record == "error":
            raise refused(placed.file, placed.document.number, BadRecordError(str(error), reason=TOO_LONG)) from None
        return False
    return True


def _write(kept: Sequence[_Placed], tokenizer: CorpusTokenizer, writer: ShardWriter) -> None:
    texts = [document.content for document, _, _ in kept if isinstance(document.content, str)]
    encoded = _with_eos(tokenizer.encode(texts), tokenizer.entry.eos_token_id, writer.dtype)
    for document, side, file in kept:
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
