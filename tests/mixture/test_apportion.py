"""Error diffusion against exact fractions, its bounds for any weights, and the adversary that reaches them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import doremi
from doremi.mixture.apportion import MAX_BATCH_SIZE, ONE, apportion, move_stranded_credits, to_fixed_point

PUBLISHED = Path(doremi.__file__).parent / "data" / "published_weights.json"


def harmonic_bound(k):
    """H_k − 1 in fixed point, rounded up."""
    return -(-sum(Fraction(ONE, j) for j in range(2, k + 1)) // 1)


def by_the_method(weights, credits, num_rows):
    """The rule in exact fractions, one unit at a time."""
    quotas = [Fraction(int(w), ONE) * num_rows for w in weights]
    counts = [int(q // 1) for q in quotas]
    credits = [c + q - n for c, q, n in zip(credits, quotas, counts, strict=True)]
    for _ in range(num_rows - sum(counts)):
        largest = max(range(len(credits)), key=lambda i: (credits[i], -i))
        counts[largest] += 1
        credits[largest] -= 1
    return counts, credits


def test_by_hand():
    """Half, a quarter and a quarter of 3 rows: q = (1.5, .75, .75)."""
    weights, credits = np.array([ONE // 2, ONE // 4, ONE // 4]), np.zeros(3, np.int64)
    counts, credits = apportion(weights, credits, num_rows=3)
    assert counts.tolist() == [1, 1, 1]  # .75 beats .5
    assert (credits / ONE).tolist() == [0.5, -0.25, -0.25]
    counts, credits = apportion(weights, credits, num_rows=3)
    assert counts.tolist() == [2, 1, 0]  # 1.0, then the tie at .5 goes to the lowest index
    assert (credits / ONE).tolist() == [0.0, -0.5, 0.5]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 70), st.integers(0, 2**32))
def test_agrees_with_the_rule_in_exact_fractions(k, num_rows, seed):
    rng = np.random.default_rng(seed)
    credits, exact = np.zeros(k, np.int64), [Fraction(0)] * k
    for _ in range(20):
        weights = to_fixed_point(rng.dirichlet(np.full(k, 0.3)) + 1e-9)
        counts, credits = apportion(weights, credits, num_rows=num_rows)
        expected, exact = by_the_method(weights, exact, num_rows)
        assert counts.tolist() == expected
        assert [Fraction(int(c), ONE) for c in credits] == exact


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    k=st.one_of(st.integers(1, 30), st.sampled_from([100, 1000])),
    num_rows=st.one_of(st.integers(1, 64), st.sampled_from([511, 4096])),
    concentration=st.sampled_from([0.01, 0.3, 1.0, 30.0]),
    num_zeros=st.integers(0, 999),
    seed=st.integers(0, 2**32),
)
def test_bounds_hold_for_weights_that_change_at_every_step(k, num_rows, concentration, num_zeros, seed):
    """Delivered against asked for, summed in exact integers; some domains have weight 0 throughout."""
    rng = np.random.default_rng(seed)
    positive = rng.permutation(k) >= min(num_zeros, k - 1)
    credits, asked, delivered = (np.zeros(k, np.int64) for _ in range(3))
    for _ in range(40):
        weights = to_fixed_point((rng.dirichlet(np.full(k, concentration)) + 1e-12) * positive)
        counts, credits = apportion(weights, credits, num_rows=num_rows)
        asked, delivered = asked + weights * num_rows, delivered + counts
        owed = asked - delivered * ONE
        np.testing.assert_array_equal(owed, credits)
        assert counts.sum() == num_rows
        assert counts.min() >= 0
        assert (counts[weights * num_rows >= ONE] > 0).all()
        assert (counts[~positive] == 0).all()
        assert owed.min() > -ONE
        assert owed.max() <= harmonic_bound(int(positive.sum()))


def test_weights_that_come_and_go():
    """A weight of 0 is never drawn, and what it was owed, or had ahead, passes to the largest weight."""
    rng, k, num_rows = np.random.default_rng(5), 12, 7
    credits, ledger = np.zeros(k, np.int64), np.zeros(k, np.int64)
    for _ in range(300):
        weights = to_fixed_point(rng.dirichlet(np.full(k, 0.5)) * (rng.random(k) < 0.6) + np.eye(k)[0] * 1e-3)
        stranded = ledger[weights == 0].sum()
        ledger[weights == 0] = 0
        ledger[weights.argmax()] += stranded
        counts, credits = apportion(weights, move_stranded_credits(credits, weights), num_rows=num_rows)
        ledger += weights * num_rows - counts * ONE
        np.testing.assert_array_equal(credits, ledger)
        assert counts.sum() == num_rows
        assert (counts[weights == 0] == 0).all()
        assert ((credits > -ONE) | (counts == weights * num_rows // ONE)).all()  # an extra unit needs a credit above 0
    assert credits.sum() == 0


@pytest.mark.parametrize("k", [3, 22, 1000])
def test_the_harmonic_adversary_reaches_the_bound(k):
    """One row a step, always asked of those that have had none: the last one to wait is owed H_k − 1 rows."""
    credits, waiting = np.zeros(k, np.int64), np.ones(k, bool)
    while waiting.sum() > 1:
        weights = to_fixed_point(np.where(waiting, 1.0, 1e-30))  # not 0, which would move the credits
        counts, credits = apportion(weights, credits, num_rows=1)
        waiting &= counts == 0
        assert credits.min() > -ONE
    bound = harmonic_bound(k)
    assert bound - k * k <= credits.max() <= bound  # k steps, each rounding by k units of 2^-40 at most


def test_published_weights_stay_within_one_row_over_a_million_draws():
    """The weights that the upstream project published for its 120M reference, at its batch size."""
    published = json.loads(PUBLISHED.read_text())["upstream-120m"]["weights"]
    wanted = np.array(list(published.values()))
    wanted /= wanted.sum()
    weights, credits, delivered = to_fixed_point(wanted), np.zeros(22, np.int64), np.zeros(22, np.int64)
    worst, num_steps = 0.0, 1_000_000 // 512 + 1
    for step in range(1, num_steps + 1):
        counts, credits = apportion(weights, credits, num_rows=512)
        delivered += counts
        worst = max(worst, np.abs(delivered - wanted * 512 * step).max())
    assert worst < 1


@settings(derandomize=True, max_examples=200)
@given(
    st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=1000).filter(lambda w: sum(w) > 1e-6),
)
def test_fixed_point_is_exact_and_keeps_zero_apart_from_tiny(values):
    weights = np.array(values)
    fixed = to_fixed_point(weights)
    assert fixed.sum() == ONE
    np.testing.assert_array_equal(fixed > 0, weights > 0)
    off = np.abs(fixed - weights / weights.sum() * ONE) > 1.01
    assert off.sum() <= 1  # a largest weight makes up for those that are kept above 0
    np.testing.assert_array_equal(to_fixed_point(fixed / ONE), fixed)


def test_the_largest_batch_does_not_overflow():
    counts, credits = apportion(np.array([ONE - 1, 1]), np.zeros(2, np.int64), num_rows=MAX_BATCH_SIZE)
    assert counts.tolist() == [MAX_BATCH_SIZE, 0]
    assert credits.tolist() == [-MAX_BATCH_SIZE, MAX_BATCH_SIZE]
