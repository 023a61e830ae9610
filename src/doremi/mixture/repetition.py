"""How often a domain may be repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from doremi.errors import InputError
from doremi.mixture.permutation import MAX_ROWS

Action = Literal["warn", "error", "renormalise"]


@dataclass(frozen=True)
class RepetitionLimit:
    """A number of epochs over each domain, and what happens beyond it.

    Up to 4 epochs, repeated data is nearly as good as new data (Muennighoff et al. 2023, Section 6).

    Args:
        max_epochs: > 0; may be a fraction or infinite.
        action: ``warn``: once for each domain, then go on. ``error``: stop before the batch that would pass the limit.
            ``renormalise``: from that batch on the domain has weight 0 and the others are scaled up.

    Raises:
        InputError: a value out of its range.
    """

    max_epochs: float = 4.0
    action: Action = "warn"

    def __post_init__(self) -> None:
        if not self.max_epochs > 0:
            raise InputError(f"max_epochs is {self.max_epochs}; it must be above 0 (infinity: no limit)")
        if self.action not in get_args(Action):
            raise InputError(f"the action at max_epochs is {self.action!r}; it must be one of {get_args(Action)}")

    def rows(self, num_rows: np.ndarray) -> np.ndarray:
        """Draws of each domain (int64[k]) that make ``max_epochs`` of its ``num_rows`` (int64[k])."""
        return np.floor(np.minimum(num_rows * self.max_epochs, MAX_ROWS)).astype(np.int64)

    def describe(self, name: str, num_rows: int) -> str:
        """What happened to a domain that passed the limit, and what to do."""
        return (
            f"domain {name!r}, which has {num_rows} rows, goes beyond {self.max_epochs:g} epochs; lower its "
            "weight, add data, train for fewer steps or raise max_epochs"
        )
