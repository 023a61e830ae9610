"""How many rows a reference is asked for, where its losses are stored when they are first computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from doremi.planning.rows import expected_distinct
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
