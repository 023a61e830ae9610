"""What a person wants to know of a corpus: one table."""

from __future__ import annotations

from doremi.corpus.store import TokenStore

_COLUMNS = ("documents", "tokens", "MB", "bytes/token", "sequences", "share", "held-out docs", "held-out tokens")


def show(store: TokenStore, *, sequence_length: int = 1024) -> str:
    """A table with a line per domain: documents, tokens, MB of UTF-8, bytes per token, rows of ``sequence_length``
    tokens, share of the training tokens (the natural weight), held-out documents and tokens.
    """
    total = max(sum(store.num_tokens(name) for name in store.names), 1)
    lines = [[name, *_cells(store, name, sequence_length, total)] for name in store.names]
    table = [["domain", *_COLUMNS], *lines]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    text = "\n".join(
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in table)
    )
    facts = f"{total:,} training tokens as {store.dtype}; sequences of {sequence_length}; digest {store.digest}"
    return f"{text}\n{facts}"


def _cells(store: TokenStore, name: str, sequence_length: int, total: int) -> list[str]:
    tokens, num_bytes = store.num_tokens(name), store.num_bytes(name)
    text_tokens = max(tokens - store.num_documents(name), 1)
    return [
        f"{store.num_documents(name):,}",
        f"{tokens:,}",
        f"{num_bytes / 1e6:,.2f}",
        f"{num_bytes / text_tokens:.2f}",
        f"{store.num_sequences(name, sequence_length):,}",
        f"{tokens / total:.4f}",
        f"{store.num_documents(name, split='held_out'):,}",
        f"{store.num_tokens(name, split='held_out'):,}",
    ]
