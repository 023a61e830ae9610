"""Columns of token ids in the Arrow files of ``datasets.save_to_disk``, located once and then read by memory map."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from doremi import files
from doremi.corpus.reading.sources import damage_reported
from doremi.corpus.storing.indexed import map_file
from doremi.errors import InputError

STATE = "state.json"


class ArrowFile:
    """One ``.arrow`` file, mapped when it is first read and then for as long as it is in use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def content(self) -> np.ndarray:
        """uint8[file size], by memory map."""
        return map_file(self.path, np.dtype(np.uint8))

    def view(self, offset: int, count: int, dtype: str) -> np.ndarray:
        """dtype[count] from byte ``offset`` on."""
        return np.frombuffer(self.content, dtype, count, offset)


@dataclass(frozen=True)
class ArrowShard:
    """The token ids of one record batch: a piece of its file, about 1,000 rows one after the other."""

    file: ArrowFile
    dtype: str
    offset: int  # of the ids, bytes
    num_tokens: int
    num_rows: int
    ends_offset: int  # of the row boundaries, bytes
    ends_dtype: str

    def tokens(self) -> np.ndarray:
        """tokens[num_tokens], a view of the map."""
        return self.file.view(self.offset, self.num_tokens, self.dtype)

    def document_lengths(self) -> np.ndarray:
        """int[rows that are not empty]."""
        lengths = np.diff(self.file.view(self.ends_offset, self.num_rows + 1, self.ends_dtype))
        return lengths[lengths > 0]


def fingerprint(folder: Path) -> str:
    """What datasets calls the content of a saved dataset."""
    return str(files.read_json(folder / STATE).get("_fingerprint"))


def arrow_shards(folder: Path, column: str) -> list[ArrowShard]:
    """Every record batch of a saved dataset that has tokens, in order. O(batches): no token is read.

    Raises:
        InputError: a file is missing or damaged, there is no such column, or it does not hold lists of integers.
    """
    listed = files.read_json(folder / STATE).get("_data_files", [])
    paths = [folder / _plain_name(folder, str(entry["filename"])) for entry in listed]
    return [shard for path in paths for shard in _shards_of(path, column)]


def _plain_name(folder: Path, name: str) -> str:
    """A file of the dataset's own folder: its state may be anybody's, and is no leave to read elsewhere."""
    if Path(name).name != name:
        raise InputError(f"{folder / STATE}: names a file {name!a} outside of its folder; save the dataset again")
    return name


def _shards_of(path: Path, column: str) -> Iterator[ArrowShard]:
    """Python's own map for once: it can be told not to read ahead, so that finding the batches of a terabyte touches
    two pages of each. It is let go of, with its file descriptor, when the last batch is.
    """
    import pyarrow as pa

    file = ArrowFile(path)
    with damage_reported(path), path.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            mapped.madvise(mmap.MADV_RANDOM)
        buffer = pa.py_buffer(mapped)
        for batch in pa.ipc.open_stream(pa.BufferReader(buffer)):
            shard = _locate(file, _ids(batch, column, path), buffer)
            if shard.num_tokens:
                yield shard


def _ids(batch: Any, column: str, path: Path) -> Any:
    """The lists of token ids of a batch."""
    import pyarrow as pa

    if column not in batch.schema.names:
        names = ", ".join(map(repr, batch.schema.names))
        raise InputError(f"{path}: no column {column!r} of token ids; it has {names}; text has to be prepared first")
    ids = batch.column(column)
    is_list = pa.types.is_list(ids.type) or pa.types.is_large_list(ids.type)
    if not is_list or not pa.types.is_integer(ids.type.value_type):
        raise InputError(f"{path}: column {column!r} is {ids.type}; only lists of integers are read in place")
    if ids.null_count or ids.values.null_count:
        raise InputError(f"{path}: column {column!r} has missing values; every row needs its token ids")
    return ids


def _locate(file: ArrowFile, ids: Any, mapped: Any) -> ArrowShard:
    values, ends = ids.values, ids.offsets
    dtype, ends_dtype = np.dtype(str(values.type)), np.dtype(str(ends.type))
    first, last = ends[0].as_py(), ends[-1].as_py()
    start = values.buffers()[1].address if last > first else mapped.address
    return ArrowShard(
        file=file,
        dtype=dtype.name,
        offset=start - mapped.address + (values.offset + first) * dtype.itemsize,
        num_tokens=last - first,
        num_rows=len(ids),
        ends_offset=ends.buffers()[1].address - mapped.address + ends.offset * ends_dtype.itemsize,
        ends_dtype=ends_dtype.name,
    )
