"""Blocks in random order, rows mixed within a window, every row once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi.errors import InputError
from doremi.mixture import BlockShuffle, MixtureSchedule
from doremi.mixture.permutation import stream_key


def rows_in_order(order, num_rows, seed=0):
    positions = np.arange(num_rows, dtype=np.uint64)
    key = stream_key(seed, "blocks").repeat(num_rows)
    return order(positions, num_rows=np.full_like(positions, num_rows), key=key).astype(np.int64)


@settings(derandomize=True, max_examples=150)
@given(st.integers(1, 2000), st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32))
def test_every_row_exactly_once(num_rows, rows_per_block, blocks_per_window, seed):
    rows = rows_in_order(BlockShuffle(rows_per_block, blocks_per_window), num_rows, seed)
    assert sorted(rows.tolist()) == list(range(num_rows))


def test_reads_stay_within_a_window_of_blocks():
    """103 rows are 25 blocks of 4 and 3 rows over, which come last; a window has 5 blocks."""
    rows = rows_in_order(BlockShuffle(4, 5), 103)
    windows = [set((rows[start : start + 20] // 4).tolist()) for start in range(0, 103, 20)]
    assert [len(blocks) for blocks in windows] == [5, 5, 5, 5, 5, 1]
    assert set().union(*windows) == set(range(26))
    assert windows[-1] == {25}


def test_blocks_and_rows_are_both_mixed():
    rows = rows_in_order(BlockShuffle(8, 4), 8 * 64)
    blocks = (rows // 8).reshape(16, 32)
    windows = [sorted(set(line.tolist())) for line in blocks]
    assert windows != [list(range(start, start + 4)) for start in range(0, 64, 4)]  # neighbours are spread
    assert (np.diff(blocks, axis=1) == 0).mean() < 0.4  # by chance 7 of 31 rows follow one of their own block
    assert (np.diff(rows) == 1).sum() < 30  # 512 · 1/32 are expected within a window
    assert not np.array_equal(rows, rows_in_order(BlockShuffle(8, 4), 8 * 64, seed=1))


def test_in_a_schedule_it_is_another_order_of_the_same_rows():
    def make(order=None):
        return MixtureSchedule({"a": 60}, weights={"a": 1}, global_batch_size=60, seed=0, order=order)

    blocks = make(BlockShuffle(5, 3))
    first, second = blocks.next_batch().rows, blocks.next_batch().rows
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(60))
    assert first.tolist() != second.tolist()
    with pytest.raises(InputError, match="order was 'block-shuffle-5x3' and is now 'shuffle'"):
        make().load_state_dict(blocks.state_dict())
    with pytest.raises(InputError, match="order was 'block-shuffle-5x3' and is now 'block-shuffle-5x4'"):
        make(BlockShuffle(5, 4)).load_state_dict(blocks.state_dict())


def test_refuses_empty_blocks():
    with pytest.raises(InputError, match=r"rows_per_block=0.*: both sizes must be at least 1"):
        BlockShuffle(0, 3)
