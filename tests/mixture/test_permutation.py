"""Keyed permutations: one-to-one, and as random as NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi.mixture.permutation import permute, stream, stream_key


def rows_in_order(num_rows, key):
    return permute_within(num_rows, np.arange(num_rows, dtype=np.uint64), key)


def permute_within(num_rows, positions, key):
    return permute(positions, num_rows=np.full(len(positions), num_rows, np.uint64), key=key.repeat(len(positions)))


def many_orders(num_rows, num_keys, purpose="test"):
    """int64[num_keys, num_rows]: one permutation a line, all of them in a single call."""
    keys = stream(stream_key(0, purpose), np.arange(num_keys, dtype=np.uint64))
    positions = np.tile(np.arange(num_rows, dtype=np.uint64), num_keys)
    rows = permute(positions, num_rows=np.full_like(positions, num_rows), key=np.repeat(keys, num_rows))
    return rows.reshape(num_keys, num_rows).astype(np.int64)


def test_the_stream_is_splitmix64():
    """The first numbers of SplitMix64 from state 0, as published with xoshiro (state + golden ratio, then mixed)."""
    first = stream(np.zeros(1, np.uint64), np.arange(4, dtype=np.uint64))
    assert [hex(number) for number in first] == ["0x0", "0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


@settings(derandomize=True, max_examples=200)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_every_row_exactly_once(num_rows, key):
    assert sorted(rows_in_order(num_rows, np.array([key], np.uint64)).tolist()) == list(range(num_rows))


@settings(derandomize=True, max_examples=100)
@given(st.integers(1, 2**60), st.data())
def test_huge_domains_stay_in_range_and_one_to_one(num_rows, data):
    positions = data.draw(st.lists(st.integers(0, num_rows - 1), min_size=1, max_size=50, unique=True))
    rows = permute_within(num_rows, np.array(positions, np.uint64), stream_key(3, "huge")).tolist()
    assert len(set(rows)) == len(rows)
    assert all(0 <= row < num_rows for row in rows)


def test_a_call_over_many_domains_is_many_calls():
    sizes = np.array([7, 100, 1, 12_345], np.uint64)
    keys = stream(stream_key(1, "many"), np.arange(4, dtype=np.uint64))
    together = permute(np.array([3, 99, 0, 777], np.uint64), num_rows=sizes, key=keys)
    for row, position, size, key in zip(together, [3, 99, 0, 777], sizes, keys, strict=True):
        assert rows_in_order(int(size), np.array([key]))[position] == row


def statistics(orders):
    """Of each permutation: what would give away structure. Scaled to mean 0 or 1 and a spread of order 1."""
    num_rows = orders.shape[1]
    positions = np.arange(num_rows)
    centred = (orders - orders.mean(axis=1, keepdims=True)) / positions.std()
    num_blocks = min(10, num_rows // 5)
    cells = positions * num_blocks // num_rows * num_blocks + orders * num_blocks // num_rows
    in_cells = (cells[:, :, None] == np.arange(num_blocks**2)).sum(axis=1)
    expected = num_rows / num_blocks**2
    return {
        "correlation with the position": (centred * _ramp(num_rows)).mean(axis=1) * np.sqrt(num_rows),
        "lag-1 correlation": (centred[:, 1:] * centred[:, :-1]).mean(axis=1) * np.sqrt(num_rows),
        "rows of a block in blocks of positions": ((in_cells - expected) ** 2 / expected).sum(1)
        / (num_blocks - 1) ** 2,
        "rows in their own place": (orders == positions).sum(axis=1),
        "neighbours that stay neighbours": (np.diff(orders, axis=1) == 1).sum(axis=1),
    }


def _ramp(num_rows):
    positions = np.arange(num_rows)
    return (positions - positions.mean()) / positions.std()


@pytest.mark.parametrize(("num_rows", "num_orders"), [(21, 4000), (50, 4000), (100, 2000), (1000, 300)])
def test_as_random_as_numpys_permutations(num_rows, num_orders):
    """Mean and spread of each statistic agree with NumPy's within 4 standard errors."""
    numpys = np.random.default_rng(0).permuted(np.tile(np.arange(num_rows), (num_orders, 1)), axis=1)
    expected = statistics(numpys)
    for name, ours in statistics(many_orders(num_rows, num_orders)).items():
        spread = expected[name].std()
        assert abs(ours.mean() - expected[name].mean()) < 4 * spread * np.sqrt(2 / num_orders), name
        assert abs(ours.std() / spread - 1) < 4 * np.sqrt(2 / num_orders), name


def test_epochs_of_more_than_20_rows_differ():
    """21! is far above the number of epochs: two equal orders, or one much like another, would be a defect."""
    orders = many_orders(21, 3000)
    assert len(np.unique(orders, axis=0)) == 3000
    assert (orders[1:] == orders[:-1]).sum(axis=1).max() < 11  # about 1 row in place is expected


def test_keys_differ_by_seed_and_purpose():
    keys = {int(stream_key(seed, purpose)[0]) for seed in (0, 1, 2**64 - 1) for purpose in ("a", "b", "", "\ud800")}
    assert len(keys) == 12
