"""One domain's rows as an endless stream that can be read at any draw."""

from __future__ import annotations

import numpy as np

from doremi.mixture.permutation import RowOrder, stream, stream_key

MIN_ROWS_AHEAD = 1024  # 0.1 ms for 1 row or for 1,024: worked out in blocks, a row costs 0.1 µs


class DomainRows:
    """All rows of a domain once, then all of them again in another order, and so on.

    The order depends on (seed, domain name, epoch) alone: neither on the weights nor on the other domains. So rows can
    be worked out ahead of time, 8 bytes each, whatever weights come next.

    Args:
        name: the domain.
        num_rows: rows of the domain, >= 1.
        seed: in [0, 2^64).
        order: the permutation of each epoch.
    """

    def __init__(self, name: str, *, num_rows: int, seed: int, order: RowOrder) -> None:
        self._num_rows = np.array([num_rows], np.uint64)
        self._key = stream_key(seed, f"rows:{name}")
        self._order = order
        self._block_start = 0
        self._block = np.empty(0, np.int64)

    def at(self, draw: int, count: int) -> np.ndarray:
        """The rows of draws ``draw`` to ``draw + count``, int64[count], not to be written to."""
        offset = draw - self._block_start
        if offset < 0 or offset + count > len(self._block):
            self._block = self._work_out(draw, max(MIN_ROWS_AHEAD, 4 * count))
            self._block_start, offset = draw, 0
        return self._block[offset : offset + count]

    def _work_out(self, draw: int, count: int) -> np.ndarray:
        draws = np.arange(draw, draw + count, dtype=np.uint64)
        epochs = draws // self._num_rows
        positions = draws - epochs * self._num_rows
        rows = self._order(positions, num_rows=self._num_rows, key=stream(self._key, epochs))
        return rows.astype(np.int64)
