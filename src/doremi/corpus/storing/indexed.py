"""Megatron's ``.idx`` file: where each document of a headerless ``.bin`` of tokens lies.

Layout (MMIDIDX version 1, little-endian): magic, version u64, dtype code u8, number of sequences u64, number of
document boundaries u64; then int32 lengths[n], int64 byte offsets[n], int64 document boundaries[n + 1]. Here a
sequence is a document, its length counts the final EOS, and the boundaries are 0..n. Megatron-LM, OLMo-core and,
linked, nanotron read the pair as it is.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from doremi.errors import InputError, MissingFileError

MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_BYTES_PER_DOCUMENT = 4 + 8 + 8
_CODES = {"uint16": 8, "int32": 4}  # Megatron's DType enumeration
MAX_BYTES_AT_OPENING = 1 << 20  # 52,000 documents: asking a network for so much takes no longer than for the header
REMEDY = "prepare the corpus again"
MAX_UINT16_VOCAB_SIZE = 1 << 16


def dtype_for(vocab_size: int) -> str:
    """``uint16`` where every token id fits, else ``int32``."""
    return "uint16" if vocab_size <= MAX_UINT16_VOCAB_SIZE else "int32"


def little_endian(dtype: str) -> np.dtype:
    """The NumPy dtype of the bytes on disk, the same on every machine."""
    return np.dtype(dtype).newbyteorder("<")


def index_size(num_documents: int) -> int:
    """Bytes of the ``.idx`` file of so many documents."""
    return _HEADER.size + num_documents * _BYTES_PER_DOCUMENT + 8


def write_index(path: Path, lengths: np.ndarray, *, dtype: str) -> None:
    """Write the ``.idx`` of documents of ``lengths`` (int[n], tokens, EOS included)."""
    with path.open("wb") as file:
        for part in _parts(lengths, dtype=dtype):
            file.write(part)


def _parts(lengths: np.ndarray, *, dtype: str) -> tuple[bytes | memoryview, ...]:
    offsets = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], out=offsets[1:])
    offsets *= little_endian(dtype).itemsize
    return (
        _HEADER.pack(MAGIC, 1, _CODES[dtype], len(lengths), len(lengths) + 1),
        lengths.astype("<i4").data,
        offsets.astype("<i8", copy=False).data,
        np.arange(len(lengths) + 1, dtype="<i8").data,
    )


def read_lengths(path: Path, *, dtype: str, num_tokens: int | None = None) -> np.ndarray:
    """int32[n]: tokens of each document, EOS included.

    Args:
        path: the ``.idx`` file.
        dtype: of the tokens.
        num_tokens: in the ``.bin`` file, where that is known.

    Raises:
        MissingFileError: there is no such file.
        InputError: not an index of this layout and dtype, one that was cut short, or one of other tokens.
    """
    with _missing_reported(path), path.open("rb") as file:
        num_documents = _read_header(file, path, dtype=dtype)
        _check_size(file, path, num_documents)
        lengths = np.fromfile(file, dtype="<i4", count=num_documents)
    _check_lengths(path, lengths, num_tokens=num_tokens)
    return lengths


def check_index(path: str, *, dtype: str, num_documents: int, num_tokens: int) -> None:
    """Refuse an index that is not that of its shard; reads all of it up to 1 MiB, of a longer one header and ends.

    What lies between is checked where it is read (`read_lengths`), and by `doremi corpus verify`.

    Raises:
        MissingFileError: there is no such file.
        InputError: another file, version, dtype or number of documents, or lengths and offsets that do not fit.
    """
    with _missing_reported(path), open(path, "rb") as file:  # noqa: PTH123 - ten thousand at a time
        found = _read_header(file, path, dtype=dtype)
        if found != num_documents:
            raise InputError(f"{path}: an index of {found} documents, the manifest says {num_documents}; {REMEDY}")
        _check_size(file, path, num_documents)
        if index_size(num_documents) > MAX_BYTES_AT_OPENING:
            _check_ends(file, path, num_documents, end=num_tokens * little_endian(dtype).itemsize, dtype=dtype)
            return
        data = file.read()
    lengths = np.frombuffer(data, "<i4", num_documents)
    _check_lengths(path, lengths, num_tokens=num_tokens)
    if data != b"".join(_parts(lengths, dtype=dtype)[1:]):  # all else follows from them
        raise InputError(f"{path}: its offsets and boundaries are not those of its lengths: it was changed; {REMEDY}")


def _read_header(file: BinaryIO, path: Path | str, *, dtype: str) -> int:
    """The number of documents."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(MAGIC):
        raise InputError(f"{path}: not a Megatron index (it does not begin with MMIDIDX); {REMEDY}")
    _, version, code, num_documents, num_boundaries = _HEADER.unpack(header)
    if (version, code) != (1, _CODES[dtype]):
        raise InputError(
            f"{path}: index version {version} with dtype code {code}, expected version 1 with code "
            f"{_CODES[dtype]} ({dtype}); {REMEDY}"
        )
    if num_boundaries != num_documents + 1:
        raise InputError(f"{path}: {num_boundaries} boundaries of {num_documents} documents: it was changed; {REMEDY}")
    return num_documents


def _check_size(file: BinaryIO, path: Path | str, num_documents: int) -> None:
    if (size := os.fstat(file.fileno()).st_size) != (expected := index_size(num_documents)):
        raise InputError(
            f"{path}: {size} bytes, but {num_documents} documents take {expected}: cut short or changed; {REMEDY}"
        )


def _check_lengths(path: Path | str, lengths: np.ndarray, *, num_tokens: int | None) -> None:
    if len(lengths) and lengths.min() < 1:
        raise InputError(f"{path}: a document of {lengths.min()} tokens; every one has its EOS at least; {REMEDY}")
    total = int(lengths.sum(dtype=np.int64))
    if num_tokens not in (None, total):
        raise InputError(f"{path}: lengths of {total} tokens in all, the shard has {num_tokens}; {REMEDY}")


def _check_ends(file: BinaryIO, path: Path | str, num_documents: int, *, end: int, dtype: str) -> None:
    """The first and the last document of an index that is long."""
    lengths_at, offsets_at = _HEADER.size, _HEADER.size + 4 * num_documents
    last_length = _value_at(file, offsets_at - 4, "<i4") * little_endian(dtype).itemsize
    first, last = _value_at(file, offsets_at, "<i8"), _value_at(file, offsets_at + 8 * (num_documents - 1), "<i8")
    last_boundary = _value_at(file, index_size(num_documents) - 8, "<i8")
    if (first, last + last_length, last_boundary) != (0, end, num_documents) or _value_at(file, lengths_at, "<i4") < 1:
        raise InputError(
            f"{path}: its documents lie in bytes {first} to {last + last_length} of {end}: it was changed; {REMEDY}"
        )


def _value_at(file: BinaryIO, position: int, dtype: str) -> int:
    file.seek(position)
    return int(np.fromfile(file, dtype=dtype, count=1)[0])


def map_file(path: Path, dtype: np.dtype) -> np.ndarray:
    """The whole file as dtype[n], read-only, by memory map.

    Not np.memmap: Python's map keeps a file descriptor for as long as it lives, of which a process often has 1,024.
    Arrow's lives on without one.

    Raises:
        MissingFileError: there is no such file.
    """
    import pyarrow as pa

    with _missing_reported(path), pa.memory_map(str(path)) as file:
        return np.frombuffer(file.read_buffer(), dtype)


@contextmanager
def _missing_reported(path: Path | str) -> Iterator[None]:
    """Files are opened when they are first read, and may be gone by then."""
    try:
        yield
    except FileNotFoundError:
        raise MissingFileError(f"{path}: a file of the corpus is missing; put it back, or prepare it again") from None


@dataclass(frozen=True)
class IndexedShard:
    """One ``.bin`` and ``.idx`` pair; neither is opened before it is read."""

    path: Path  # without suffix
    dtype: str
    num_tokens: int

    def tokens(self) -> np.ndarray:
        """tokens[num_tokens], by memory map."""
        return map_file(self.path.with_name(f"{self.path.name}.bin"), little_endian(self.dtype))

    def document_lengths(self) -> np.ndarray:
        """int32[documents], each with its EOS."""
        path = self.path.with_name(f"{self.path.name}.idx")
        return read_lengths(path, dtype=self.dtype, num_tokens=self.num_tokens)
