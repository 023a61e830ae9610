"""Learning-rate schedules as pure functions of the step. Step 1 is the first optimizer step, step T the last."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from doremi.errors import InputError


def _linear(f: float, r: float) -> float:
    return 1 - (1 - r) * f


DECAYS: dict[str, Callable[[float, float], float]] = {
    # (f, r) -> factor: f in [0, 1] is the share of the decay phase that is over, r = end / peak
    "cosine": lambda f, r: r + (1 - r) * (1 + math.cos(math.pi * f)) / 2,
    "exponential": lambda f, r: r**f,  # the paper's: 1e-3 · 0.1^f (upstream's version is down to 1.16e-4 at f = 0.25)
    "linear": _linear,
    "wsd": _linear,  # warm-up, stable, decay, also called trapezoidal: the peak is held until the last part of the run
    "constant": lambda f, r: 1.0,
}


@dataclass(frozen=True)
class LearningRateSchedule:
    """Linear warm-up to the peak, then a decay that reaches ``end_factor`` × peak at the last step.

    Args:
        decay: a key of `DECAYS`.
        end_factor: end / peak, in [0, 1]; 1 keeps the peak.
        decay_fraction: of ``wsd``: the share of all steps over which it decays. Where warm-up leaves less than that,
            there is no stable phase.

    Raises:
        InputError: a value out of its range, or an exponential decay to 0, which is 0 from its first step on.
    """

    decay: str
    end_factor: float
    decay_fraction: float = 0.2

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise InputError(f"learning-rate schedule {self.decay!r}: it must be one of {', '.join(DECAYS)}")
        if not 0 <= self.end_factor <= 1:
            raise InputError(f"the learning rate ends at {self.end_factor:g} of its peak; it must be from 0 to 1 of it")
        if self.decay == "exponential" and self.end_factor == 0:
            raise InputError("an exponential decay never reaches 0: give an end above it, or use linear or cosine")
        if not 0 < self.decay_fraction <= 1:
            raise InputError(f"decay_fraction is {self.decay_fraction:g}; it must be above 0 and at most 1")

    def factor(self, step: int, *, num_steps: int, warmup_steps: int) -> float:
        """Factor on the peak learning rate at ``step`` (1 to ``num_steps``); 1 exactly at ``warmup_steps``."""
        if step < warmup_steps:
            return step / warmup_steps
        last_at_peak: float = warmup_steps
        if self.decay == "wsd":
            last_at_peak = max(warmup_steps, num_steps - self.decay_fraction * num_steps)
        if step <= last_at_peak:
            return 1.0
        fraction = (step - last_at_peak) / (num_steps - last_at_peak)
        return DECAYS[self.decay](min(fraction, 1.0), self.end_factor)
