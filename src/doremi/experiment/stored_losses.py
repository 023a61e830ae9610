"""How many rows a reference is asked for, where its losses are stored when they are first computed.

For plans with the rows that runs are expected to draw, for results with those that they drew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from doremi.training.sparse_rows import StoredDtype, row_size


@dataclass
class StoredLosses:
    """The losses of one reference. Runs of the same seed draw the same rows, those of other seeds rows of their own."""

    num_values: int  # of a row
    dtype: StoredDtype
    num_rows: float = 0.0  # that were computed
    _drawn: dict[str, dict[int, float]] = field(default_factory=dict)  # by domain and seed

    def ask(self, rows: Mapping[str, float], *, seed: int, available: Mapping[str, int]) -> float:
        """Rows that are computed for one more run.

        Args:
            rows: that the run draws of each domain.
            seed: of the run.
            available: rows that each domain has.
        """
        before = self.num_rows
        for name, count in rows.items():
            drawn = self._drawn.setdefault(name, {})
            self.num_rows -= expected_distinct(drawn.values(), available=available[name])
            drawn[seed] = max(count, drawn.get(seed, 0.0))
            self.num_rows += expected_distinct(drawn.values(), available=available[name])
        return self.num_rows - before

    def ask_for_unknown(self, num_rows: int) -> float:
        """The same of a run of which it is not known what it draws: at most all of its rows."""
        self.num_rows += num_rows
        return float(num_rows)

    @property
    def num_bytes(self) -> float:
        """On disk."""
        return self.num_rows * row_size(self.num_values, self.dtype)


def expected_distinct(drawn: Iterable[float], *, available: int) -> float:
    """Rows of a domain of ``available`` that several runs see at all, each drawing as many in its own order.

    A run sees no row twice before it has seen all; runs of other seeds are independent of it: R (1 − Π (1 − D_n/R)).
    """
    if available == 0:
        return 0.0
    return available * (1 - math.prod(1 - min(count / available, 1.0) for count in drawn))
