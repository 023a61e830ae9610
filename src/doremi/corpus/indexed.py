"""Megatron's ``.idx`` file: where each document of a headerless ``.bin`` of tokens lies.

Layout (MMIDIDX version 1, little-endian): magic, version u64, dtype code u8, number of sequences u64, number of
document boundaries u64; then int32 lengths[n], int64 byte offsets[n], int64 document boundaries[n + 1]. Here a
sequence is a document, its length counts the final EOS, and the boundaries are 0..n. Megatron-LM, OLMo-core and,
linked, nanotron read the pair as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from doremi.errors import InputError, MissingFileError

MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_BYTES_PER_DOCUMENT = 4 + 8 + 8
_CODES = {"uint16": 8, "int32": 4}  # Megatron's DType enumeration
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
    offsets = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], out=offsets[1:])
    offsets *= little_endian(dtype).itemsize
    with path.open("wb") as file:
        file.write(_HEADER.pack(MAGIC, 1, _CODES[dtype], len(lengths), len(lengths) + 1))
        file.write(lengths.astype("<i4").data)
        file.write(offsets.astype("<i8", copy=False).data)
        file.write(np.arange(len(lengths) + 1, dtype="<i8").data)


def read_lengths(path: Path, *, dtype: str) -> np.ndarray:
    """int32[n]: tokens of each document, EOS included.

    Raises:
        MissingFileError: there is no such file.
        InputError: not an index of this layout and dtype, or one that was cut short.
    """
    with _missing_reported(path), path.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(MAGIC):
            raise InputError(f"{path}: not a Megatron index (it does not begin with MMIDIDX); prepare the corpus again")
        _, version, code, num_documents, _ = _HEADER.unpack(header)
        if (version, code) != (1, _CODES[dtype]):
            raise InputError(
                f"{path}: index version {version} with dtype code {code}, expected version 1 with code "
                f"{_CODES[dtype]} ({dtype}); prepare the corpus again"
            )
        lengths = np.fromfile(file, dtype="<i4", count=num_documents)
    if len(lengths) != num_documents:
        raise InputError(f"{path}: {len(lengths)} of {num_documents} documents: cut short; prepare the corpus again")
    return lengths


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
def _missing_reported(path: Path) -> Iterator[None]:
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
        return read_lengths(self.path.with_name(f"{self.path.name}.idx"), dtype=self.dtype)
