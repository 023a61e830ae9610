"""The .idx file against bytes written out by hand."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from doremi.corpus.storing import indexed
from doremi.errors import InputError

HEADER = b"MMIDIDX\x00\x00" + struct.pack("<Q", 1)


@pytest.mark.parametrize(("dtype", "code", "itemsize"), [("uint16", 8, 2), ("int32", 4, 4)])
def test_bytes_are_megatrons(tmp_path, dtype, code, itemsize):
    path = tmp_path / "x.idx"
    indexed.write_index(path, np.array([3, 1, 5], np.int32), dtype=dtype)
    expected = HEADER + struct.pack("<BQQ", code, 3, 4)
    expected += struct.pack("<3i", 3, 1, 5)
    expected += struct.pack("<3q", 0, 3 * itemsize, 4 * itemsize)
    expected += struct.pack("<4q", 0, 1, 2, 3)
    assert path.read_bytes() == expected
    assert indexed.index_size(3) == len(expected)
    assert indexed.read_lengths(path, dtype=dtype).tolist() == [3, 1, 5]


def test_uint16_up_to_its_last_id():
    assert indexed.dtype_for(65536) == "uint16"
    assert indexed.dtype_for(65537) == "int32"


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.idx").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(InputError, match=r"x\.idx: not a Megatron index .*MMIDIDX"):
        indexed.read_lengths(tmp_path / "x.idx", dtype="uint16")


def test_another_dtype_is_refused(tmp_path):
    indexed.write_index(tmp_path / "x.idx", np.array([3], np.int32), dtype="int32")
    with pytest.raises(InputError, match=r"dtype code 4, expected version 1 with code 8 \(uint16\)"):
        indexed.read_lengths(tmp_path / "x.idx", dtype="uint16")
