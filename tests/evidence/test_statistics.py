"""Intervals over seeds: by hand, against scipy's own tests, and their coverage by simulation."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from doremi.evidence import statistics

NUM_DRAWS = 2_000


def covered(estimates, truth):
    return np.mean([estimate.low <= truth <= estimate.high for estimate in estimates])


def test_paired_t_by_hand():
    """Mean 2, standard deviation 1, so 2 ± 4.302653/√3; p from the tables for t = 2√3 with 2 degrees of freedom."""
    found = statistics.over_seeds([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert (found.low, found.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert found.p_value == pytest.approx(0.074180, abs=1e-6)
    assert found.method == "paired t over seeds (n=3)"


def test_is_scipys_paired_t():
    rng = np.random.default_rng(0)
    tuned, baseline = rng.normal(3.0, 0.1, 7), rng.normal(3.05, 0.1, 7)
    found = statistics.over_seeds(tuned - baseline)
    scipys = stats.ttest_rel(tuned, baseline)
    assert found.p_value == pytest.approx(scipys.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(scipys.confidence_interval(0.95)), rel=1e-9)


@pytest.mark.parametrize(
    ("differences", "value", "method"),
    [
        ([], None, "none: 0 of the 3 seeds that an interval needs"),
        ([0.5], 0.5, "none: 1 of the 3 seeds that an interval needs"),
        ([0.5, 0.7], 0.6, "none: 2 of the 3 seeds that an interval needs"),
        ([3.1 - 3.0, 2.1 - 2.0, 1.1 - 1.0], 0.1, "none: all 3 seeds give the same number"),
    ],
)
def test_no_interval_and_why(differences, value, method):
    """Differences that are equal but for rounding would give an interval of 1e-16 and a certain verdict."""
    found = statistics.over_seeds(differences)
    assert found.value == (None if value is None else pytest.approx(value))
    assert (found.low, found.high, found.p_value, found.method) == (None, None, None, method)


def test_estimates_are_json():
    found = [statistics.over_seeds(np.float32([1, 2, 4])), statistics.over_seeds([1]), statistics.over_seeds([])]
    assert json.loads(json.dumps([dataclasses.asdict(x) for x in found], allow_nan=False))[2]["value"] is None


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_coverage_over_seeds(num_seeds, shape):
    """Nominal 95 %. The skewed differences are gamma with skewness 0.7; measured: 93 to 96 %."""
    rng = np.random.default_rng(num_seeds)
    draws = {
        "normal": rng.normal(0.02, 0.05, (NUM_DRAWS, num_seeds)),
        "skewed": 0.02 + 0.05 * (rng.gamma(8, size=(NUM_DRAWS, num_seeds)) - 8) / 8**0.5,
    }
    assert 0.92 <= covered([statistics.over_seeds(row) for row in draws[shape]], 0.02) <= 0.98


def test_holm_by_hand():
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1 is .02, .03, .06, .04; the last may not be below the one before."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([0.04]) == [0.04]
    assert statistics.holm([]) == []


@settings(derandomize=True, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_holm_lies_between_no_correction_and_bonferroni_whatever_the_order(p_values, random):
    corrected = statistics.holm(p_values)
    for p, adjusted in zip(p_values, corrected, strict=True):
        assert p <= adjusted <= min(len(p_values) * p, 1) + 1e-12
    assert min(corrected) == pytest.approx(min(len(p_values) * min(p_values), 1))
    order = random.sample(range(len(p_values)), len(p_values))
    assert statistics.holm([p_values[i] for i in order]) == [corrected[i] for i in order]


def test_minimal_detectable_effect_is_that_of_published_tables():
    """R's power.t.test(delta = .5, power = .8, type = "paired") gives n = 33.367."""
    at_33, at_34 = (statistics.minimal_detectable_effect(1.0, num_seeds=n) for n in (33, 34))
    assert at_34 < 0.5 < at_33
    assert 33 + (at_33 - 0.5) / (at_33 - at_34) == pytest.approx(33.367, abs=0.01)
    assert statistics.minimal_detectable_effect(0.02, num_seeds=34) == pytest.approx(0.02 * at_34)


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_an_effect_of_that_size_is_found_four_times_in_five(num_seeds):
    effect = statistics.minimal_detectable_effect(0.05, num_seeds=num_seeds)
    draws = np.random.default_rng(1).normal(effect, 0.05, (NUM_DRAWS, num_seeds))
    assert np.mean([statistics.over_seeds(row).low > 0 for row in draws]) == pytest.approx(0.8, abs=0.03)


def test_fiellers_interval_ends_where_the_paired_t_is_at_five_percent():
    explained, gains = np.array([0.10, 0.07, 0.11, 0.06]), np.array([0.20, 0.16, 0.19, 0.15])
    found = statistics.ratio_over_seeds(explained, gains)
    assert found.value == pytest.approx(0.34 / 0.70)
    assert found.low < found.value < found.high
    assert (found.p_value, found.method) == (None, "Fieller over seeds (n=4)")
    for ratio in (found.low, found.high):
        assert stats.ttest_rel(explained, ratio * gains).pvalue == pytest.approx(0.05, rel=1e-6)


def test_a_numerator_that_is_the_denominator_has_ratio_one():
    gains = [0.2, 0.16, 0.19]
    found = statistics.ratio_over_seeds(gains, gains)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1), abs=1e-6)


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_coverage_of_fiellers_interval(num_seeds):
    rng = np.random.default_rng(2)
    shared = rng.normal(0, 0.004, (NUM_DRAWS, num_seeds))
    explained = 0.06 + shared + rng.normal(0, 0.004, shared.shape)
    gains = 0.1 + shared + rng.normal(0, 0.004, shared.shape)
    assert 0.92 <= covered(map(statistics.ratio_over_seeds, explained, gains), 0.6) <= 0.98
