"""Runs side by side: the three summaries over domains, and the steps to match the baseline.

Pure functions of numbers; nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from doremi.evidence.targets import standard


class Summaries(NamedTuple):
    """Three ways to put one number on k domains, nats per token. One alone misleads: they often disagree."""

    uniform_mean: float
    reference_mean: float
    worst: float
    worst_domain: str


def summarise(nats: Mapping[str, float], reference_weights: Mapping[str, float]) -> Summaries:
    """The summaries over the domains of ``nats``; reference weights are renormalised over them."""
    targets = standard({name: reference_weights[name] for name in nats})
    values = {key: target.value(nats) for key, target in targets.items()}
    return Summaries(**values, worst_domain=targets["worst"].worst_set(nats))


def steps_to_match(steps: Sequence[int], values: Sequence[float], target: float) -> float | None:
    """Where a falling curve first reaches ``target``, linear between evaluations; None: not reached.

    A curve that is at the target by its first evaluation gives that evaluation's step.
    """
    for index, (step, value) in enumerate(zip(steps, values, strict=True)):
        if value <= target:
            if index == 0:
                return float(step)
            before_step, before = steps[index - 1], values[index - 1]
            return before_step + (step - before_step) * (before - target) / (before - value)
    return None
