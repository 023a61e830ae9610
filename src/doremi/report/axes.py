"""Scales of the chart of the weights before and after: where a weight stands between 0 (left) and 1 (right)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MAX_INTERVALS = 4


@dataclass(frozen=True)
class Tick:
    """A labelled grid line; the distance to the next one is the same everywhere."""

    position: float
    label: str


@dataclass(frozen=True)
class LinearAxis:
    """From 0 to ``intervals * step``."""

    step: float
    intervals: int

    @classmethod
    def covering(cls, weights: Iterable[float]) -> LinearAxis:
        """The axis with the fewest round intervals, at most four, that reaches the largest weight."""
        largest = max((w for w in weights if w > 0), default=1.0)
        power = 10.0 ** (math.floor(math.log10(largest / MAX_INTERVALS)))
        step = next(s * power for s in (1, 2, 2.5, 5, 10) if largest <= MAX_INTERVALS * s * power * (1 + 1e-9))
        return cls(step, math.ceil(largest / step - 1e-9))

    def position(self, weight: float | None) -> float:
        """Where ``weight`` stands."""
        return (weight or 0.0) / (self.step * self.intervals)

    @property
    def ticks(self) -> list[Tick]:
        """One more than there are intervals."""
        return [Tick(i / self.intervals, f"{100 * i * self.step:.4g}%") for i in range(self.intervals + 1)]


@dataclass(frozen=True)
class LogAxis:
    """From 10^exponent over ``intervals`` powers of ten; smaller weights, and 0, stand at the left end."""

    exponent: int
    intervals: int

    @classmethod
    def covering(cls, weights: Iterable[float]) -> LogAxis:
        """The axis of whole powers of ten around all positive weights."""
        positive = [w for w in weights if w > 0] or [1.0]
        end = math.ceil(math.log10(max(positive)) - 1e-9)
        exponent = min(math.floor(math.log10(min(positive)) + 1e-9), end - 1)
        return cls(exponent, end - exponent)

    def position(self, weight: float | None) -> float:
        """Where ``weight`` stands."""
        if not weight or weight < 0:
            return 0.0
        return max(0.0, (math.log10(weight) - self.exponent) / self.intervals)

    @property
    def ticks(self) -> list[Tick]:
        """One more than there are intervals."""
        exponents = range(self.exponent, self.exponent + self.intervals + 1)
        return [Tick((e - self.exponent) / self.intervals, f"{10.0 ** (e + 2):.4g}%") for e in exponents]
