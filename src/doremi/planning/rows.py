"""How many rows of each domain a run will draw, without going through its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping

from doremi.mixture import RepetitionLimit


def expected_rows(
    weights: Mapping[str, float], *, num_rows: int, available: Mapping[str, int], repetition: RepetitionLimit
) -> dict[str, float]:
    """Rows of each domain when ``num_rows`` are drawn with ``weights``; the loader stays within a few rows of it.

    Where domains are to be left out at their limit of epochs (``renormalise``), the others take over their share from
    then on; once all are at their limit, nothing more is drawn.
    """
    if repetition.action != "renormalise":
        return {name: weight * num_rows for name, weight in weights.items()}
    limits = {name: available[name] * repetition.max_epochs for name in weights}
    drawn, left = dict.fromkeys(weights, 0.0), float(num_rows)
    active = {name: weight for name, weight in weights.items() if weight > 0}
    while active and left > 0:
        total = math.fsum(active.values())
        # rows until the first of the active domains is at its limit
        stretch = min(left, *((limits[name] - drawn[name]) * total / weight for name, weight in active.items()))
        for name, weight in active.items():
            drawn[name] += stretch * weight / total
        left -= stretch
        active = {name: weight for name, weight in active.items() if drawn[name] < limits[name] * (1 - 1e-12)}
    return drawn
