"""What the tuned weights save and what they cost: steps and FLOPs to reach the baseline's final loss, over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from doremi.evidence.parts import Count, Measured
from doremi.evidence.statistics import Estimate, over_seeds, ratio_over_seeds, without_interval


@dataclass(frozen=True)
class SpeedUp:
    """How soon the tuned run is where the baseline ends, each seed against its own baseline."""

    num_seeds: Count
    num_reached: Count  # seeds in which it gets there at all
    factor: Estimate  # baseline steps / steps to match; above 1 is faster
    steps_to_match: Estimate
    flops_to_match: Estimate
    factor_with_search: Estimate  # in FLOPs, with the reference and the proxy on the tuned side


@dataclass(frozen=True)
class Cost:
    """FLOPs of one tuned model, by stage ("reference", "proxy", ...)."""

    search: dict[str, Measured]
    main: Measured  # None: not known
    total: Measured
    search_over_main: Measured


@dataclass(frozen=True)
class ExplainedGain:
    """The share of the gain that a control reaches as well; 1 is all of it."""

    share: Estimate
    by_seed: dict[int, Measured] | None  # None: not defined


def speed_up(
    steps_to_match: Mapping[int, float | None],
    *,
    baseline_steps: int,
    flops_per_step: float,
    search_flops: float = 0.0,
) -> SpeedUp:
    """The speed-up with a t interval on its logarithm over seeds, as ratios are skewed; its value is a geometric mean.

    Where a seed does not get there, its speed-up is known only to be less than it could show: no mean of the others,
    which would be too good, but ``num_reached`` of ``num_seeds``.

    Args:
        steps_to_match: by seed, from `comparison.steps_to_match`; None where the baseline's end is not reached.
        baseline_steps: that the baseline was trained for.
        flops_per_step: of the model, which is the same in both runs. NaN: not known.
        search_flops: of the reference and the proxy, all rounds. NaN: not known.
    """
    reached = [steps for steps in steps_to_match.values() if steps is not None]
    if len(reached) == len(steps_to_match):
        log_factor = over_seeds([math.log(baseline_steps / steps) for steps in reached])
    else:
        reason = f"{len(reached)} of {len(steps_to_match)} seeds reach the baseline's final loss"
        log_factor = without_interval(None, reason)
    baseline_flops = baseline_steps * flops_per_step

    def as_steps(log: float) -> float:
        return baseline_steps * math.exp(-log)

    return SpeedUp(
        num_seeds=len(steps_to_match),
        num_reached=len(reached),
        factor=_transformed(log_factor, math.exp),
        steps_to_match=_transformed(log_factor, as_steps),
        flops_to_match=_transformed(log_factor, lambda log: as_steps(log) * flops_per_step),
        factor_with_search=_transformed(
            log_factor, lambda log: baseline_flops / (as_steps(log) * flops_per_step + search_flops)
        ),
    )


def cost(search: Mapping[str, float], *, main: float) -> Cost:
    """Add up the FLOPs of finding the weights (by stage) and of training the main model once; NaN: not known."""
    found = math.fsum(search.values())
    return Cost(
        search={stage: _known(flops) for stage, flops in search.items()},
        main=_known(main),
        total=_known(found + main),
        search_over_main=_known(found / main),
    )


def _known(flops: float) -> float | None:
    return None if math.isnan(flops) else flops


def explained_gain(
    *, baseline: Mapping[int, float], control: Mapping[int, float], tuned: Mapping[int, float]
) -> ExplainedGain:
    """(baseline − control) / (baseline − tuned): how much of the gain the control explains, in one summary by seed.

    With `reference_without_floor` as the control: how much of it comes from dropping the domains that DoReMi sends to
    the floor. The value is the ratio of the means over seeds; a mean of ratios would be ruled by the smallest gain.
    """
    seeds = sorted(baseline.keys() & control.keys() & tuned.keys())
    gains = [baseline[seed] - tuned[seed] for seed in seeds]
    explained = [baseline[seed] - control[seed] for seed in seeds]
    if reason := _why_no_gain(over_seeds(gains)):
        return ExplainedGain(without_interval(None, f"not defined: {reason}"), None)
    shares = {seed: part / gain if gain else None for seed, part, gain in zip(seeds, explained, gains, strict=True)}
    return ExplainedGain(ratio_over_seeds(explained, gains), shares)


def _why_no_gain(gain: Estimate) -> str | None:
    if gain.low is None or gain.high is None:
        return f"seed noise not measured ({gain.method.removeprefix('none: ')})"
    if gain.high < 0:
        return "the tuned weights are worse, there is no gain to explain"
    if gain.low <= 0:
        return "the gain itself is not distinguishable from zero"
    return None


def _transformed(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    """A monotone function of an estimate; a falling one swaps the ends."""
    value = None if estimate.value is None else function(estimate.value)
    if value is not None and math.isnan(value):
        return without_interval(None, "FLOPs are not known")
    if estimate.low is None or estimate.high is None:
        return Estimate(value, None, None, None, estimate.method)
    low, high = sorted((function(estimate.low), function(estimate.high)))
    return Estimate(value, low, high, None, f"{estimate.method}, on the logarithm")
