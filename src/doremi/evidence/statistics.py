"""Intervals, p-values and power for differences between trained models. Pure functions; nothing here imports torch.

What is said about a difference rests on few seeds, so only methods whose coverage is known at such sizes are used (the
tests simulate it); where none is, there is no interval, and ``method`` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, special, stats  # type: ignore[import-untyped]

from doremi.evidence.parts import Measured

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05  # two-sided
POWER = 0.8
MIN_SEEDS = 3
NO_METHOD = "none: "  # begins the method of a number without an interval; the reason follows
ROUNDING = 1e-9  # a spread below this is rounding in the losses, and no measure of noise


@dataclass(frozen=True)
class Estimate:
    """A number and how sure it is; `dataclasses.asdict` makes JSON of it.

    Where there is no interval, ``low``, ``high`` and ``p_value`` are None, and ``method`` begins with "none: " and says
    why. ``value`` is None where there is nothing to estimate.
    """

    value: Measured
    low: Measured
    high: Measured
    p_value: Measured  # two-sided, of no difference; a ratio has none
    method: str

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None) or (self.low is not None and self.value is None):
            raise ValueError(f"an interval needs a value and both ends, not {self.low} <= {self.value} <= {self.high}")

    @property
    def ends(self) -> tuple[float, float] | None:
        """Low and high; None without an interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def reason(self) -> str:
        """How the interval was made, or why there is none."""
        return self.method.removeprefix(NO_METHOD)


def without_interval(value: float | None, reason: str) -> Estimate:
    """A number of unknown uncertainty."""
    return Estimate(value, None, None, None, f"{NO_METHOD}{reason}")


def student(value: float, *, standard_error: float, degrees_of_freedom: float, method: str) -> Estimate:
    """The 95 % interval and the p-value of Student's t for an estimate with a standard error > 0."""
    # What stats.t computes, without 0.1 ms of argument checks: the simulations that stand behind it call it often.
    half_width = special.stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2) * standard_error
    p_value = 2 * special.stdtr(degrees_of_freedom, -abs(value) / standard_error)
    return Estimate(float(value), float(value - half_width), float(value + half_width), float(p_value), method)


def over_seeds(differences: Sequence[float]) -> Estimate:
    """The mean of one paired difference per seed (float[n]) by Student's paired t, if n >= 3.

    Two runs of one seed start from the same parameters and see each domain's text in the same order, so their
    difference varies less from seed to seed than either of them.
    """
    values = np.asarray(differences, np.float64)
    num_seeds = len(values)
    if num_seeds < MIN_SEEDS:
        mean = float(values.mean()) if num_seeds else None
        return without_interval(mean, f"{num_seeds} of the {MIN_SEEDS} seeds that an interval needs")
    if np.ptp(values) < ROUNDING:
        return without_interval(float(values.mean()), f"all {num_seeds} seeds give the same number")
    return student(
        float(values.mean()),
        standard_error=float(values.std(ddof=1)) / num_seeds**0.5,
        degrees_of_freedom=num_seeds - 1,
        method=f"paired t over seeds (n={num_seeds})",
    )


def ratio_over_seeds(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """mean(numerators) / mean(denominators), paired by seed (float[n] each), with Fieller's interval.

    The interval holds every ratio ρ for which the paired t over seeds cannot tell mean(numerators − ρ denominators)
    from 0: a quadratic in ρ, bounded exactly if the interval of the mean denominator excludes 0, which is required.

    Source: Fieller 1954, "Some problems in interval estimation", J. R. Stat. Soc. B 16, 175 to 185.
    """
    assert over_seeds(denominators).p_value is not None, "a ratio needs a denominator of known noise"
    top, bottom = np.mean(numerators), np.mean(denominators)
    num_seeds = len(numerators)
    covariance = np.cov(numerators, denominators) / num_seeds  # of the two means
    squared_t = stats.t.ppf((1 + CONFIDENCE) / 2, num_seeds - 1) ** 2
    square, linear, constant = (
        bottom**2 - squared_t * covariance[1, 1],
        top * bottom - squared_t * covariance[0, 1],
        top**2 - squared_t * covariance[0, 0],
    )
    assert square > 0, "a ratio needs a denominator that differs from 0"
    root = max(linear**2 - square * constant, 0.0) ** 0.5  # never below 0 but for rounding
    low, high = (linear - root) / square, (linear + root) / square
    return Estimate(float(top / bottom), float(low), float(high), None, f"Fieller over seeds (n={num_seeds})")


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for having asked m questions at once: p_(j) becomes max over i <= j of (m − i + 1) p_(i).

    Calling those below 5 % significant errs anywhere among the m at most 5 % of the time, however the tests depend on
    one another; never less powerful than Bonferroni's m p.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6, 65 to 70.
    """
    values = np.asarray(p_values, np.float64)
    order = values.argsort()
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(adjusted, 1.0).tolist()


def minimal_detectable_effect(spread: float, *, num_seeds: int) -> float:
    """The true mean difference that a two-sided 5 % paired t over seeds finds with 80 % probability.

    Args:
        spread: standard deviation of the paired differences, taken as the true one. Few seeds tell it roughly: with
            3, the true one is 0.52 to 6.3 times it (95 %).
        num_seeds: at least 3.

    It depends on the spread alone and not on the difference that was found, so it is not the "observed power" that
    merely restates the p-value (Hoenig and Heisey 2001, Am. Stat. 55, 19 to 24).

    Source: Bloom 1995, "Minimum detectable effects", Evaluation Review 19, 547 to 556; exact, with the noncentral t.
    """
    return spread * _detectable_noncentrality(num_seeds) / num_seeds**0.5


@cache
def _detectable_noncentrality(num_seeds: int) -> float:
    degrees_of_freedom = num_seeds - 1
    critical = stats.t.ppf(1 - SIGNIFICANCE / 2, degrees_of_freedom)

    def missing_power(noncentrality: float) -> float:
        return POWER - float(stats.nct.sf(critical, degrees_of_freedom, noncentrality))  # of finding the right sign

    return float(optimize.brentq(missing_power, 0.0, 2 * critical))
