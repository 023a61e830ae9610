"""The rows of each domain as an endless stream that can be read from any draw on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from doremi.mixture.permutation import RowOrder, stream, stream_key

MIN_ROWS_AHEAD = 8192  # 0.4 ms, of which 0.2 ms is NumPy's overhead per call: 50 ns a row, 200 ns at 1,024
MIN_BATCHES_AHEAD = 16


class RowStreams:
    """For every domain: all its rows once, then all of them again in another order, and so on.

    The order depends on (seed, domain name, epoch) alone, neither on the weights nor on the other domains. So rows
    are worked out ahead of time, for all domains in one go, and serve whatever weights come next: at most 8,192 rows
    or 16 batches of them, and 2 and twice the square root for each domain, at 8 bytes a row.

    Args:
        sequence_counts: rows of each of the k domains.
        seed: in [0, 2^64).
        order: the permutation of each epoch.
    """

    def __init__(self, sequence_counts: Mapping[str, int], *, seed: int, order: RowOrder) -> None:
        self._num_rows = np.array(list(sequence_counts.values()), np.uint64)
        self._keys = np.concatenate([stream_key(seed, f"rows:{name}") for name in sequence_counts])
        self._order = order
        # what was worked out: of domain i the draws from starts[i] to ends[i], which begin at rows[offsets[i]]
        self._starts, self._ends, self._offsets = (np.zeros(len(sequence_counts), np.int64) for _ in range(3))
        self._rows = np.empty(0, np.int64)

    def take(self, draws: np.ndarray, counts: np.ndarray, *, weights: np.ndarray) -> np.ndarray:
        """The next rows of each domain, domain after domain.

        Args:
            draws: int64[k], rows that each domain has delivered before.
            counts: int64[k], rows wanted of each, not 0 in total.
            weights: float64[k], sum 1: what the following batches are likely to ask for.

        Returns:
            int64[Σ counts].
        """
        is_there = (draws >= self._starts) & (draws + counts <= self._ends)
        if not is_there.all():
            self._work_out(draws, np.maximum(counts, self._likely_counts(weights, int(counts.sum()))))
        return self._rows[_ranges(self._offsets + draws - self._starts, counts)]

    def _likely_counts(self, weights: np.ndarray, batch_size: int) -> np.ndarray:
        """Rows to work out for each domain, with a margin so that they all run out at about the same time."""
        num_ahead = max(MIN_ROWS_AHEAD, MIN_BATCHES_AHEAD * batch_size)
        expected = weights * num_ahead
        return np.where(weights > 0, expected + 2 * np.sqrt(expected) + 2, 0).astype(np.int64)

    def _work_out(self, draws: np.ndarray, counts: np.ndarray) -> None:
        self._starts, self._ends, self._offsets = draws, draws + counts, np.cumsum(counts) - counts
        num_rows = self._num_rows.repeat(counts)
        epochs, positions = np.divmod(_ranges(draws, counts).astype(np.uint64), num_rows)
        keys = stream(self._keys.repeat(counts), epochs)
        self._rows = self._order(positions, num_rows=num_rows, key=keys).astype(np.int64)


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``counts[i]`` consecutive numbers from ``starts[i]`` on, for one i after the other."""
    firsts = np.cumsum(counts) - counts
    return (starts - firsts).repeat(counts) + np.arange(counts.sum())
