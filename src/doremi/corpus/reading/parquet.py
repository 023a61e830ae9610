"""Parquet files, and their division into units of work that depends on nothing but the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from doremi.corpus.reading.remote import RemoteFile
from doremi.corpus.reading.sources import Source, damage_reported, num_bytes, opened

PART_BYTES = 256 << 20  # of a part, as stored. Shards and so digests depend on it, but not what rows a store has
READ_BYTES = 4 << 20  # of a column of a remote file at a time; a whole column of a row group may be a gigabyte


class RowGroups(NamedTuple):
    """Consecutive row groups of a parquet file."""

    first: int
    stop: int
    first_row: int  # rows before them
    num_bytes: int  # as stored, of all columns


@contextmanager
def open_parquet(source: Source) -> Iterator[Any]:
    """The file as a ``pyarrow.parquet.ParquetFile``: by memory map, or read in pieces where it is remote.

    Raises:
        InputError: it is damaged, or not parquet.
    """
    import pyarrow.parquet as pq

    if isinstance(source, RemoteFile):
        with opened(source) as stream, pq.ParquetFile(stream, buffer_size=READ_BYTES) as file:
            yield file
    else:
        with damage_reported(source), pq.ParquetFile(source, memory_map=True) as file:
            yield file


def divide(source: Source) -> list[RowGroups | None]:
    """The parts of a file: as few row groups as have `PART_BYTES` together each; None for a smaller file as a whole.

    Raises:
        InputError: the file is large, and its footer cannot be read.
    """
    if num_bytes(source) <= PART_BYTES:
        return [None]
    with open_parquet(source) as file:
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        sizes = [sum(group.column(c).total_compressed_size for c in range(group.num_columns)) for group in groups]
        return list(_ranges(sizes, [group.num_rows for group in groups])) or [None]


def _ranges(sizes: list[int], rows: list[int]) -> Iterator[RowGroups]:
    first = first_row = pending = 0
    for index, size in enumerate(sizes, start=1):
        pending += size
        if pending >= PART_BYTES or index == len(sizes):
            yield RowGroups(first, index, first_row, pending)
            first_row += sum(rows[first:index])
            first, pending = index, 0
