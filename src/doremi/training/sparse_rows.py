"""Rows of floats in a sparse file that reads as NaN until somebody writes to it. No torch.

A word of the file is the bit pattern of a value XOR that of NaN, so that the zeros which a sparse file is made of mean
NaN, "not written". A file of any size is made at once, and takes space only for the rows that were really written.

A row counts as there when none of its values is NaN, and NaN is never written. Hence nothing needs a lock or a marker:
what a kill within a row, a power cut, or another node that shares the file leaves out is NaN, never another value. The
system copies whole words, and processes that write the same row write the same values.

The last word of a row is a checksum of the others and of the row's number, so that damage on the disk is seen: such a
row is not there. It takes about a microsecond a row; of float16 it has 16 bits, and lets one damage in 65,536 pass.

Reads go through a memory map. Writes do not: a store to a map kills the process (SIGBUS) where the disk is full, while
a write to the file is an error that can be explained.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import xxhash

from doremi import files
from doremi.errors import InputError

logger = logging.getLogger(__name__)

ROWS_PER_SCAN = 1024

StoredDtype = Literal["float32", "float16"]


class _Coding(NamedTuple):
    values: np.dtype
    words: np.dtype  # unsigned integers of the same size
    nan: np.unsignedinteger  # the bit pattern that a word of 0 stands for


_CODINGS = {
    "float32": _Coding(np.dtype("<f4"), np.dtype("<u4"), np.uint32(0x7FC00000)),
    "float16": _Coding(np.dtype("<f2"), np.dtype("<u2"), np.uint16(0x7E00)),
}
DTYPES = tuple(_CODINGS)


def row_size(num_values: int, dtype: StoredDtype) -> int:
    """Bytes from one row to the next: one word more than the values.

    The last one is the checksum. For the L − 1 losses of a row of L tokens that is L words. So rows of 1,024 tokens in
    float32 are just the blocks of the disk: each touches one instead of two, and nodes never write to the same page.
    """
    return (num_values + 1) * _CODINGS[dtype].words.itemsize


def create(path: Path, *, num_rows: int, num_values: int, dtype: StoredDtype) -> None:
    """Make ``path`` a file of ``num_rows`` rows, none of them there. O(1) time, memory and space."""
    with path.open("xb") as file:
        file.truncate(num_rows * row_size(num_values, dtype))
    files.fsync(path)


def complete(values: np.ndarray) -> np.ndarray:
    """bool[n]: which of ``values[n, T]`` are rows without any NaN."""
    return ~np.isnan(values).any(axis=1)


class SparseRows:
    """``values[num_rows, num_values]`` in the file that `create` made.

    Raises:
        InputError: the file is not of the size that goes with these numbers.
    """

    def __init__(self, path: Path, *, num_rows: int, num_values: int, dtype: StoredDtype) -> None:
        self.path, self.num_values, self._has_warned = path, num_values, False
        self._coding = _CODINGS[dtype]
        self._row_size = row_size(num_values, dtype)
        size = path.stat().st_size if path.is_file() else 0
        if size != num_rows * self._row_size:
            raise InputError(
                f"{path}: {size} bytes instead of {num_rows} rows × {self._row_size}: it was cut short "
                f"or changed; delete {path.parent} and run this again"
            )
        self._words = np.frombuffer(_map(path), self._coding.words).reshape(num_rows, num_values + 1)

    @property
    def dtype(self) -> np.dtype:
        """Of the values as they are stored."""
        return self._coding.values

    def read(self, indices: np.ndarray) -> np.ndarray:
        """float32[n, T]: rows by number, int64[n], NaN where nothing was written or what was is damaged."""
        return self._decode(self._words[indices], indices)

    def write(self, indices: np.ndarray, values: np.ndarray) -> None:
        """Store finite ``values[n, T]``, of `dtype`, as the rows ``indices`` (int64[n]).

        Raises:
            OSError: the disk is full, or the file is gone. Rows may be incomplete then, but hold no other values.
        """
        words = np.empty((len(indices), self.num_values + 1), self._coding.words)
        words[:, :-1] = np.ascontiguousarray(values).view(self._coding.words) ^ self._coding.nan
        words[:, -1] = self._checksums(words, indices)
        with self.path.open("r+b", buffering=0) as file:
            for index, row in zip(indices.tolist(), words.view(np.uint8), strict=True):
                _write_at(file.fileno(), row.data, index * self._row_size)

    def num_complete(self, start: int, stop: int) -> int:
        """How many of the rows ``start`` to ``stop`` are there. Reads what was written, skips what was not."""
        count = 0
        with self.path.open("rb") as file:
            while (start := self._seek(file.fileno(), start, os.SEEK_DATA)) < stop:
                hole = self._seek(file.fileno(), start + 1, os.SEEK_HOLE)
                end = min(hole, start + ROWS_PER_SCAN, stop)
                count += int(complete(self._decode(self._words[start:end], np.arange(start, end))).sum())
                start = end
        return count

    def _decode(self, words: np.ndarray, indices: np.ndarray) -> np.ndarray:
        values = (words[:, : self.num_values] ^ self._coding.nan).view(self._coding.values).astype(np.float32)
        is_there = complete(values)
        is_right = np.ones(len(words), bool)
        is_right[is_there] = words[is_there, -1] == self._checksums(words[is_there], indices[is_there])
        values[~is_right] = np.nan
        if (num_damaged := int((~is_right & (words[:, -1] != 0)).sum())) and not self._has_warned:
            self._has_warned = True
            logger.warning("%s: %d rows, or more, are damaged; they are computed anew", self.path, num_damaged)
        return values

    def _checksums(self, words: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """words[n] of rows[n, T + 1], never 0: that is a row which was cut short."""
        mask = np.iinfo(self._coding.words).max
        rows = zip(np.ascontiguousarray(words[:, : self.num_values]), indices.tolist(), strict=True)
        return np.array(
            [xxhash.xxh32_intdigest(row, index & 0xFFFFFFFF) & mask or 1 for row, index in rows], self._coding.words
        )

    def _seek(self, descriptor: int, row: int, what: int) -> int:
        """The row where the next data or the next hole of the file begins, from ``row`` on; past the end if nowhere."""
        try:
            return os.lseek(descriptor, row * self._row_size, what) // self._row_size
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return len(self._words)


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Rows are read in random order. The kernel would read 8 MiB (or what else it is set to) around each of them, holes
    # included: 130 ms for 64 rows that are not there, against 0.5.
    mapped.madvise(mmap.MADV_RANDOM)
    return mapped


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        num_written = os.pwrite(descriptor, data, offset)
        data, offset = data[num_written:], offset + num_written
