"""Projections onto the simplex with a lower and an upper bound on each weight: {w : lower ≤ w ≤ upper, Σ w = 1}.

Both projections have the form ``w = clip(line(x), lower, upper)`` with one unknown x, where Σ w grows with x and is
linear between the points at which a weight reaches a bound (the Karush-Kuhn-Tucker conditions). So x is found exactly,
by sorting those points: no iteration and no tolerance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from doremi.errors import InputError


def euclidean(weights: np.ndarray, *, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The point of the set that is nearest to ``weights``: argmin Σ (w_i − weights_i)² / 2; w = clip(weights + x).

    Args:
        weights: float64[k], finite.
        lower: float64[k], >= 0.
        upper: float64[k], at least ``lower``.

    Raises:
        InputError: no weights with these bounds sum to 1.
    """
    _check_bounds(lower, upper)
    return _solve(lambda x: weights + x, np.concatenate([lower - weights, upper - weights]), lower, upper)


def kl(weights: np.ndarray, *, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The point of the set with the least KL(w ‖ weights) = Σ w_i log(w_i / weights_i); w = clip(weights · x).

    Args:
        weights: float64[k], >= 0; one of 0, to which the adversary's may underflow, counts as the least number above.
        lower: float64[k], >= 0.
        upper: float64[k], at least ``lower``.

    Raises:
        InputError: no weights with these bounds sum to 1.
    """
    _check_bounds(lower, upper)
    weights = np.maximum(weights, np.finfo(np.float64).tiny)
    return _solve(lambda x: weights * x, np.concatenate([lower / weights, upper / weights]), lower, upper)


def _solve(line: Callable[[float], np.ndarray], knots: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    knots = np.sort(knots)
    sums = np.array([np.clip(line(x), lower, upper).sum() for x in knots])
    right = int(np.searchsorted(sums, 1.0))
    if right == 0:  # the lower bounds alone make 1
        return lower / lower.sum()
    if right == len(knots):  # the upper bounds alone, up to rounding
        return upper / upper.sum()
    left = right - 1
    x = knots[left] + (1 - sums[left]) / (sums[right] - sums[left]) * (knots[right] - knots[left])
    return np.clip(line(float(x)), lower, upper)


def _check_bounds(lower: np.ndarray, upper: np.ndarray) -> None:
    if (lower < 0).any() or (upper < lower).any():
        raise InputError("bounds on the weights: the lower must be >= 0 and not above the upper ones")
    if lower.sum() > 1 + 1e-12 or upper.sum() < 1 - 1e-12:
        raise InputError(
            f"bounds on the weights: the lower ones sum to {lower.sum():.4g} and the upper ones to {upper.sum():.4g}: "
            "no weights between them sum to 1. Lower the minimum or raise the maximum"
        )
