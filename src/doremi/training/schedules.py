"""Learning-rate schedules as pure functions of the step. Step 1 is the first optimizer step, step T the last."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

DECAYS: dict[str, Callable[[float, float], float]] = {
    # (f, r) -> factor: f in [0, 1] is the share of the decay phase that is over, r = end / peak
    "cosine": lambda f, r: r + (1 - r) * (1 + math.cos(math.pi * f)) / 2,
    "exponential": lambda f, r: r**f,  # the paper's: 1e-3 · 0.1^f (upstream's version is down to 1.16e-4 at f = 0.25)
    "linear": lambda f, r: 1 - (1 - r) * f,
    "constant": lambda f, r: 1.0,
}


@dataclass(frozen=True)
class LearningRateSchedule:
    """Linear warm-up to the peak, then a decay that reaches ``end_factor`` × peak at the last step."""

    decay: str
    end_factor: float

    def factor(self, step: int, *, num_steps: int, warmup_steps: int) -> float:
        """Factor on the peak learning rate at ``step`` (1 to ``num_steps``); 1 exactly at ``warmup_steps``."""
        if step < warmup_steps:
            return step / warmup_steps
        fraction = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
        return DECAYS[self.decay](min(fraction, 1.0), self.end_factor)
