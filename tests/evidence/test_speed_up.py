"""Speed-up, cost and the control's share of the gain, worked out by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from doremi.evidence.speed_up import cost, explained_gain, speed_up


def test_speed_up_is_a_geometric_mean_with_an_interval_on_the_logarithm():
    """Factors 2, 4 and 8: logarithms 1, 2 and 3 times log 2, so 4 times or divided by 2^(4.302653/√3)."""
    found = speed_up({0: 50, 1: 25, 2: 12.5}, baseline_steps=100, flops_per_step=1e3, search_flops=5e4)
    spread = 2 ** (4.302653 / 3**0.5)
    assert (found.num_seeds, found.num_reached) == (3, 3)
    assert (found.factor.value, found.factor.low, found.factor.high) == pytest.approx((4, 4 / spread, 4 * spread))
    steps = found.steps_to_match
    assert (steps.value, steps.low, steps.high) == pytest.approx((25, 25 / spread, 25 * spread))
    flops = found.flops_to_match
    assert (flops.value, flops.low, flops.high) == pytest.approx((25e3, 25e3 / spread, 25e3 * spread))
    assert found.factor_with_search.value == pytest.approx(100e3 / (25e3 + 50e3))
    assert found.factor_with_search.low == pytest.approx(100e3 / (25e3 * spread + 50e3))
    assert found.factor.method == "paired t over seeds (n=3), on the logarithm"
    json.dumps(dataclasses.asdict(found), allow_nan=False)


@pytest.mark.parametrize(
    ("steps", "value", "method"),
    [
        ({0: 50}, 2.0, "none: 1 of the 3 seeds that an interval needs"),
        ({0: 50, 1: 40, 2: None, 3: 30}, None, "none: 3 of 4 seeds reach the baseline's final loss"),
        ({0: None}, None, "none: 0 of 1 seeds reach the baseline's final loss"),
    ],
)
def test_speed_up_without_an_interval_says_why(steps, value, method):
    found = speed_up(steps, baseline_steps=100, flops_per_step=1e3)
    assert found.num_reached == sum(step is not None for step in steps.values())
    for estimate in (found.factor, found.steps_to_match, found.flops_to_match, found.factor_with_search):
        assert (estimate.low, estimate.high, estimate.method) == (None, None, method)
    assert found.factor.value == (None if value is None else pytest.approx(value))


def test_coverage_of_the_speed_up():
    """Lognormal speed-ups around 1.5, nominal 95 %."""
    rng = np.random.default_rng(0)
    hits = 0
    for draw in 100 / (1.5 * np.exp(rng.normal(0, 0.2, (2_000, 3)))):
        found = speed_up(dict(enumerate(draw.tolist())), baseline_steps=100, flops_per_step=1.0)
        hits += found.factor.low <= 1.5 <= found.factor.high
    assert 0.92 <= hits / 2_000 <= 0.98


def test_cost_adds_up():
    found = cost({"reference": 2e15, "proxy": 3e15}, main=2e16)
    assert (found.total, found.search_over_main) == (2.5e16, 0.25)
    assert found.search == {"reference": 2e15, "proxy": 3e15}


def test_a_control_that_explains_half_of_the_gain():
    """Gains .2, .16, .18 and .5 of their mean; each share by seed."""
    found = explained_gain(
        baseline={0: 3.0, 1: 3.1, 2: 3.2, 3: 9.0},
        control={0: 2.9, 1: 3.03, 2: 3.1},
        tuned={0: 2.8, 1: 2.94, 2: 3.02, 3: 1.0},
    )
    assert found.share.value == pytest.approx(0.27 / 0.54)
    assert found.by_seed == pytest.approx({0: 0.5, 1: 0.07 / 0.16, 2: 0.1 / 0.18})
    assert found.share.low < 0.5 < found.share.high
    assert found.share.method == "Fieller over seeds (n=3)"
    for end in (found.share.low, found.share.high):
        p_value = stats.ttest_rel([0.1, 0.07, 0.1], end * np.array([0.2, 0.16, 0.18])).pvalue
        assert p_value == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize(
    ("gains", "method"),
    [
        ([0.1, -0.1, 0.05], "none: not defined: the gain itself is not distinguishable from zero"),
        ([-0.2, -0.21, -0.19], "none: not defined: the tuned weights are worse, there is no gain to explain"),
        ([0.2], "none: not defined: seed noise not measured (1 of the 3 seeds that an interval needs)"),
        ([], "none: not defined: seed noise not measured (0 of the 3 seeds that an interval needs)"),
    ],
)
def test_without_a_gain_no_share_is_defined(gains, method):
    baseline = dict.fromkeys(range(len(gains)), 3.0)
    found = explained_gain(
        baseline=baseline, control=baseline, tuned={seed: 3.0 - gain for seed, gain in enumerate(gains)}
    )
    assert (found.share.value, found.share.low, found.by_seed, found.share.method) == (None, None, None, method)


def test_a_gain_of_nothing_in_one_seed_has_no_share():
    gains = {0: 0.0, 1: 0.3, 2: 0.31, 3: 0.3, 4: 0.32, 5: 0.29}
    baseline = dict.fromkeys(gains, 1.0)
    found = explained_gain(baseline=baseline, control=baseline, tuned={s: 1.0 - gain for s, gain in gains.items()})
    assert found.by_seed[0] is None
    assert found.share.value == 0.0
    assert math.isfinite(found.share.low)
