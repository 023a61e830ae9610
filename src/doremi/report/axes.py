"""Scales of the charts that are tables: where a weight or a difference stands between 0 (left) and 1 (right)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MAX_INTERVALS = 4
MAX_INTERVALS_A_SIDE = 3
SHARE_OF_ENDS = 0.9  # of intervals that must fit: one domain of few documents would make a line of all others


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
        step = _round_step(largest, MAX_INTERVALS)
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


@dataclass(frozen=True)
class SignedAxis:
    """From ``-intervals * step`` to ``intervals * step``, 0 in the middle; what is beyond stands at the end."""

    step: float
    intervals: int

    @classmethod
    def covering(cls, values: Iterable[float], *, ends: Iterable[float] = ()) -> SignedAxis:
        """The axis that reaches every one of ``values`` and nine tenths of the ``ends`` of intervals."""
        sizes = sorted(abs(end) for end in ends)
        furthest = [*map(abs, values), *sizes[: math.ceil(SHARE_OF_ENDS * len(sizes))]]
        largest = max(furthest, default=0.0) or 1.0
        step = _round_step(largest, MAX_INTERVALS_A_SIDE)
        return cls(step, math.ceil(largest / step - 1e-9))

    @property
    def end(self) -> float:
        """The largest difference on the axis."""
        return self.step * self.intervals

    def position(self, difference: float) -> float:
        """Where ``difference`` stands."""
        return (1 + max(-1.0, min(1.0, difference / self.end))) / 2

    @property
    def ticks(self) -> list[Tick]:
        """One more than there are intervals on both sides."""
        steps = range(-self.intervals, self.intervals + 1)
        return [Tick((i / self.intervals + 1) / 2, f"{i * self.step:+.4g}" if i else "0") for i in steps]


def _round_step(largest: float, max_intervals: int) -> float:
    """The smallest round step of which ``max_intervals`` reach ``largest``."""
    power = 10.0 ** (math.floor(math.log10(largest / max_intervals)))
    return next(s * power for s in (1, 2, 2.5, 5, 10) if largest <= max_intervals * s * power * (1 + 1e-9))
