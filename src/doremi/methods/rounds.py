"""When to stop iterating DoReMi (Xie et al. 2023, Section 3.2: α_ref ← ᾱ until max_i |ᾱ_i − α_ref,i| < 1e-3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

Status = Literal["converged", "oscillating", "stopped at the maximum"]
SHRINKING = 0.9  # a change counts as shrinking when it is below this share of the one before


class Progress(NamedTuple):
    """Where the rounds have got to."""

    changes: tuple[float, ...]  # of each round: the largest change of a weight against the round before
    is_over: bool  # converged, or no round is left
    status: Status | None  # None while it is not over
    warning: str | None  # when the latest change is not smaller than the one before


def judge(
    weights_by_round: Sequence[Mapping[str, float]], *, tolerance: float, max_rounds: int, stop_early: bool
) -> Progress:
    """What the weights of the rounds so far say.

    Args:
        weights_by_round: the reference weights, then the answer of each round, of at least one; a domain left out has
            weight 0.
        tolerance: largest change of a weight that counts as none.
        max_rounds: rounds that will be run at most.
        stop_early: whether convergence ends the rounds (``rounds: auto``), or is only reported.
    """
    names = list(dict.fromkeys(name for weights in weights_by_round for name in weights))
    table = np.array([[weights.get(name, 0.0) for name in names] for weights in weights_by_round])
    steps = np.diff(table, axis=0)
    changes = tuple(np.abs(steps).max(axis=1).tolist())
    converged = changes[-1] < tolerance
    is_over = len(changes) >= max_rounds or (stop_early and converged)
    status = _status(steps, changes, converged) if is_over else None
    return Progress(changes, is_over, status, None if converged else _warning(changes))


def _status(steps: np.ndarray, changes: tuple[float, ...], converged: bool) -> Status:
    if converged:
        return "converged"
    if len(changes) > 1 and steps[-1] @ steps[-2] < 0 and changes[-1] > SHRINKING * changes[-2]:
        return "oscillating"
    return "stopped at the maximum"


def _warning(changes: tuple[float, ...]) -> str | None:
    if len(changes) < 2 or changes[-1] <= SHRINKING * changes[-2]:
        return None
    listed = ", ".join(f"{change:.4f}" for change in changes)
    return (
        f"the weights do not settle: the largest change of each round is {listed}. Train the proxy longer or with a "
        "larger batch, average several proxies (doremi.seeds), or take the answer of the first round"
    )
