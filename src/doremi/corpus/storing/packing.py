"""How rows of one sequence length lie in a domain's tokens. Virtual: nothing is written, any length will do."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Packing = Literal["pack", "pad"]


class RowTable(NamedTuple):
    """Where each row begins and how many of its tokens are real."""

    starts: np.ndarray  # int64[n], position in the domain's tokens
    lengths: np.ndarray  # int64[n], 1..sequence_length


def packed_rows(indices: np.ndarray, sequence_length: int) -> RowTable:
    """Rows of the stream of all documents: row i is tokens [i·L, (i+1)·L), always full."""
    return RowTable(indices * sequence_length, np.full(len(indices), sequence_length, np.int64))


def padded_rows(document_lengths: np.ndarray, sequence_length: int) -> RowTable:
    """Every row of a domain where each document begins a row of its own (upstream's "nopack").

    A document of n tokens, EOS included, takes ⌈n/L⌉ rows, of which the last may be short. O(documents).
    """
    rows_of = -(-document_lengths // sequence_length)
    document = np.repeat(np.arange(len(document_lengths)), rows_of)
    row_in_document = np.arange(len(document)) - np.repeat(np.cumsum(rows_of) - rows_of, rows_of)
    begin = np.cumsum(document_lengths) - document_lengths
    offset = row_in_document * sequence_length
    return RowTable(begin[document] + offset, np.minimum(document_lengths[document] - offset, sequence_length))
