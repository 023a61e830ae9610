"""What a person wants to know of a corpus: one table, or the same as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from doremi.corpus.reading.split import IN_A_SET
from doremi.corpus.storing.contents import in_words
from doremi.corpus.storing.store import TokenStore
from doremi.text import visible

_COLUMNS = (
    "domain", "documents", "tokens", "MB", "bytes/token", "sequences", "share", "packed", "padded",
    "held-out docs", "tokens", "MB",
)  # fmt: skip
_SET_COLUMNS = ("evaluation set", "documents", "tokens", "MB")
_GROUPS = (slice(1, 6), slice(6, 9), slice(9, None))  # text and tokens, natural weights, what is held out


@dataclass(frozen=True)
class DomainFacts:
    """The size of one domain. Weights are natural ones: what sampling without any reweighting would draw.

    Upstream counts a domain's chunks in two ways, and its published weights differ by them: in chunks of all documents
    joined (``packed``), and in chunks where each document begins one of its own (``padded``), which gives short
    documents more weight.
    """

    name: str
    documents: int
    tokens: int  # one EOS a document included
    bytes: int  # of UTF-8
    sequences: int  # rows of the sequence length, in the store's packing
    share: float  # of the training tokens: the natural weights of a recipe
    packed_weight: float  # share of the packed chunks
    padded_weight: float  # share of the padded chunks
    held_out_documents: int
    held_out_tokens: int
    held_out_bytes: int

    @property
    def bytes_per_token(self) -> float:
        """Of text: EOS tokens stand for no byte."""
        return self.bytes / max(self.tokens - self.documents, 1)


@dataclass(frozen=True)
class SetFacts:
    """The size of an evaluation set."""

    name: str
    documents: int
    tokens: int  # one EOS a document included
    bytes: int  # of UTF-8


def describe(store: TokenStore, *, sequence_length: int = 1024) -> list[DomainFacts]:
    """The size of every domain, in the store's order. O(documents): reads the indices, none of the tokens."""
    lengths = {name: store.document_lengths(name) for name in store.names}
    shares = _shares({name: store.num_tokens(name) for name in store.names})
    packed = _shares({name: store.num_tokens(name) // sequence_length for name in store.names})
    padded = _shares({name: int((-(-lengths[name] // sequence_length)).sum()) for name in store.names})
    return [
        DomainFacts(
            name=name,
            documents=store.num_documents(name),
            tokens=store.num_tokens(name),
            bytes=store.num_bytes(name),
            sequences=store.num_sequences(name, sequence_length),
            share=shares[name],
            packed_weight=packed[name],
            padded_weight=padded[name],
            held_out_documents=store.num_documents(name, split="held_out"),
            held_out_tokens=store.num_tokens(name, split="held_out"),
            held_out_bytes=store.num_bytes(name, split="held_out"),
        )
        for name in store.names
    ]


def describe_sets(store: TokenStore) -> list[SetFacts]:
    """The size of every evaluation set, in the store's order."""
    return [
        SetFacts(
            name=name,
            documents=store.num_documents(name, split="set"),
            tokens=store.num_tokens(name, split="set"),
            bytes=store.num_bytes(name, split="set"),
        )
        for name in store.sets
    ]


def _shares(counts: dict[str, int]) -> dict[str, float]:
    """Each domain's share of the sum; 0 for all where there is nothing."""
    total = max(sum(counts.values()), 1)
    return {name: count / total for name, count in counts.items()}


def show(store: TokenStore, *, sequence_length: int = 1024, width: int | None = None) -> str:
    """`describe` as a table, with lines on the store as a whole below. Nothing is wider than ``width`` columns."""
    facts = describe(store, sequence_length=sequence_length)
    total = DomainFacts(
        name="total",
        **{field: sum(getattr(domain, field) for domain in facts) for field in vars(facts[0]) if field != "name"},
    )
    table = _within(width, [_COLUMNS, *map(_cells, [*facts, total])])
    encoded_by = ", ".join(store.manifest.get("encoded_by", [])) or "unknown"
    vocabulary = "tokenizer not known" if is_unknown(store) else f"vocabulary of {store.vocab_size:,}"
    text = (
        f"sequences of {sequence_length}, {store.packing}; share: of the tokens; packed, padded: of the chunks in "
        f"upstream's two countings\n"
        f"{store.dtype}, {vocabulary}, encoded by {encoded_by}; digest {store.digest}"
        f"{_left_out(store)}"
    )
    return f"{table}\n{_wrapped(text, width)}{_show_sets(store, width)}"


def _wrapped(text: str, width: int | None) -> str:
    return text if width is None else "\n".join(textwrap.fill(line, width) for line in text.splitlines())


def _show_sets(store: TokenStore, width: int | None) -> str:
    """A further table of the evaluation sets, if there are any, and what the training text lacks for their sake."""
    if not store.sets:
        return ""
    rows = [
        [visible(found.name), f"{found.documents:,}", f"{found.tokens:,}", _megabytes(found.bytes)]
        for found in describe_sets(store)
    ]
    text = f"never trained on; training documents left out because they equal one of a set: {num_left_out(store):,}"
    return f"\n\n{_aligned([_SET_COLUMNS, *rows])}\n{_wrapped(text, width)}"


def num_left_out(store: TokenStore) -> int:
    """Training documents that were left out because they equal one of an evaluation set."""
    return sum(item["skipped"].get(IN_A_SET, 0) for item in store.manifest.get("inputs", []))


def is_unknown(store: TokenStore) -> bool:
    """Whether nobody named the tokenizer of ids that are read in place."""
    return store.tokenizer_digest == "unknown"


def _left_out(store: TokenStore) -> str:
    """A further line on the records of the input files that did not become documents, if there are any."""
    skipped = [Counter(item["skipped"]) for item in store.manifest.get("inputs", [])]
    lossy = [counts for counts in skipped if counts]
    if not lossy:
        return ""
    total: Counter[str] = sum(lossy, Counter())
    return f"\nleft out of {len(lossy):,} of {len(skipped):,} input files (--json tells which): {in_words(total)}"


def to_json(store: TokenStore, *, sequence_length: int = 1024) -> dict[str, Any]:
    """`describe` as JSON, with what identifies the store."""
    return {
        "digest": store.digest,
        "tokenizer_digest": store.tokenizer_digest,
        "encoded_by": store.manifest.get("encoded_by", []),
        "packing": store.packing,
        "sequence_length": sequence_length,
        "inputs": store.manifest.get("inputs", []),  # name, and the records left out by reason
        "domains": [dict(vars(domain)) for domain in describe(store, sequence_length=sequence_length)],
        "sets": [dict(vars(found)) for found in describe_sets(store)],
        "left_out_for_sets": num_left_out(store),
    }


def _cells(domain: DomainFacts) -> list[str]:
    return [
        visible(domain.name),
        f"{domain.documents:,}",
        f"{domain.tokens:,}",
        _megabytes(domain.bytes),
        f"{domain.bytes_per_token:.2f}" if domain.bytes else "-",
        f"{domain.sequences:,}",
        f"{domain.share:.4f}",
        f"{domain.packed_weight:.4f}",
        f"{domain.padded_weight:.4f}",
        f"{domain.held_out_documents:,}",
        f"{domain.held_out_tokens:,}",
        _megabytes(domain.held_out_bytes),
    ]


def _megabytes(num_bytes: int) -> str:
    """A dash for what is not known of token ids whose text nobody has decoded."""
    return f"{num_bytes / 1e6:,.2f}" if num_bytes else "-"


def _within(width: int | None, rows: Sequence[Sequence[str]]) -> str:
    """One table, or one for each group of columns where that would be too wide."""
    table = _aligned(rows)
    if width is None or max(map(len, table.splitlines())) <= width:
        return table
    parts = [[[row[0], *row[group]] for row in rows] for group in _GROUPS]
    return "\n\n".join(map(_aligned, parts))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """The first column flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
