"""Losses of documents on disk: what was written comes back, under its key alone."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from doremi.errors import InputError
from doremi.evaluation import loss_files
from doremi.evidence.paired_documents import DocumentLosses

LOSSES = {
    "a/b <x>": DocumentLosses(np.array([1.5, 2.25]), np.array([3, 4])),
    "empty": DocumentLosses(np.array([]), np.array([], np.int64)),
    "c": DocumentLosses(np.array([0.1]), np.array([7])),
}
DOCUMENTS = {"a/b <x>": np.array([5, 0]), "empty": np.array([], np.int64), "c": np.array([2])}


@pytest.fixture
def path(tmp_path):
    loss_files.write(tmp_path / "held_out.parquet", LOSSES, documents=DOCUMENTS, key="k1")
    return tmp_path / "held_out.parquet"


def test_what_was_written_comes_back(path):
    found = loss_files.read(path, list(LOSSES), key="k1")
    assert list(found) == list(LOSSES)
    for name, losses in LOSSES.items():
        np.testing.assert_array_equal(found[name].nats, losses.nats)
        np.testing.assert_array_equal(found[name].num_tokens, losses.num_tokens)


def test_anyone_can_read_the_columns(path):
    assert pq.read_table(path).to_pylist() == [
        {"domain": "a/b <x>", "document": 5, "num_tokens": 3, "nats": 1.5},
        {"domain": "a/b <x>", "document": 0, "num_tokens": 4, "nats": 2.25},
        {"domain": "c", "document": 2, "num_tokens": 7, "nats": 0.1},
    ]


def test_losses_of_something_else_are_none(path, tmp_path):
    assert loss_files.read(path, list(LOSSES), key="k2") is None
    assert loss_files.read(tmp_path / "missing.parquet", list(LOSSES), key="k1") is None


def test_a_truncated_file_is_named(path):
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"held_out.parquet: damaged .*delete it, and the model is scored again"):
        loss_files.read(path, list(LOSSES), key="k1")
