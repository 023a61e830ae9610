"""Projections onto the capped simplex against a general solver, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from doremi.errors import InputError
from doremi.methods import projections


def feasible(seed, k):
    rng = np.random.default_rng(seed)
    lower = rng.uniform(0, 1 / k, k) * rng.integers(0, 2, k)
    upper = np.minimum(lower + rng.uniform(0, 3 / k, k), 1)
    if upper.sum() < 1:
        upper = np.minimum(upper + (1 - upper.sum()) / k * 1.5, 1)
    return rng.dirichlet(np.full(k, 0.5)) + 1e-6, lower, upper


def root_of(line, lower, upper, bracket):
    """The same point from the optimality conditions, with a root found by scipy."""
    x = optimize.brentq(lambda x: np.clip(line(x), lower, upper).sum() - 1, *bracket, xtol=1e-15, rtol=1e-15)
    return np.clip(line(x), lower, upper)


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40))
def test_agree_with_scipys_root_of_the_optimality_conditions(seed, k):
    weights, lower, upper = feasible(seed, k)
    euclidean = projections.euclidean(weights, lower=lower, upper=upper)
    np.testing.assert_allclose(euclidean, root_of(lambda x: weights + x, lower, upper, (-3, 3)), atol=1e-8)
    kl = projections.kl(weights, lower=lower, upper=upper)
    np.testing.assert_allclose(kl, root_of(lambda x: weights * x, lower, upper, (0, 1e7)), atol=1e-8)
    for found in (euclidean, kl):
        assert abs(found.sum() - 1) < 1e-12
        assert (found >= lower).all()
        assert (found <= upper).all()


@pytest.mark.parametrize("seed", range(5))
def test_are_the_minimisers_that_a_general_solver_finds(seed):
    weights, lower, upper = feasible(seed, 5)
    objectives = {
        projections.euclidean: lambda w: ((w - weights) ** 2).sum() / 2 * 1e3,
        projections.kl: lambda w: (w * np.log(np.maximum(w, 1e-300) / weights)).sum() * 1e3,
    }
    for project, objective in objectives.items():
        found = project(weights, lower=lower, upper=upper)
        solved = optimize.minimize(
            objective,
            np.clip(np.full(5, 0.2), lower, upper),
            bounds=list(zip(np.maximum(lower, 1e-12), upper, strict=True)),
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 1000},
        )
        np.testing.assert_allclose(found, solved.x, atol=1e-5)


def test_by_hand():
    """A cap of 0.5 on 0.7: Euclidean gives the others 0.1 each more, KL scales them by 5/3."""
    weights, free = np.array([0.7, 0.2, 0.1]), np.zeros(3)
    cap = np.array([0.5, 1.0, 1.0])
    np.testing.assert_allclose(projections.euclidean(weights, lower=free, upper=cap), [0.5, 0.3, 0.2], atol=1e-15)
    expected = [0.5, 1 / 3, 1 / 6]
    np.testing.assert_allclose(projections.kl(weights, lower=free, upper=cap), expected, atol=1e-15)
    inside = projections.kl(weights, lower=free, upper=np.ones(3))
    np.testing.assert_allclose(inside, weights, atol=1e-15)
    tight = projections.euclidean(weights, lower=np.full(3, 1 / 3), upper=np.ones(3))
    np.testing.assert_allclose(tight, np.full(3, 1 / 3), atol=1e-15)


def test_a_weight_that_underflowed_to_0_stays_there_while_the_others_suffice():
    weights, free = np.array([0.7, 0.3, 0.0]), np.zeros(3)
    found = projections.kl(weights, lower=free, upper=np.array([0.6, 1.0, 1.0]))
    np.testing.assert_allclose(found, [0.6, 0.4, 0], atol=1e-15)
    raised = projections.kl(weights, lower=np.array([0, 0, 0.1]), upper=np.ones(3))
    np.testing.assert_allclose(raised, [0.63, 0.27, 0.1], atol=1e-15)
    needed = projections.kl(weights, lower=free, upper=np.array([0.6, 0.3, 0.5]))
    np.testing.assert_allclose(needed, [0.6, 0.3, 0.1], atol=1e-15)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.floats(0, 300), min_size=2, max_size=40), st.floats(0.05, 1), st.floats(1e-9, 0.9))
def test_weights_of_any_magnitude_sum_to_one(exponents, cap, floor):
    """α with smoothing 0 spans hundreds of orders of magnitude."""
    k = len(exponents)
    weights = 10.0 ** -np.array(exponents)
    lower, upper = np.full(k, floor / k), np.full(k, max(cap, 1 / k))
    for project in (projections.kl, projections.euclidean):
        found = project(weights / weights.sum(), lower=lower, upper=upper)
        assert abs(found.sum() - 1) < 1e-12
        assert (found >= lower - 1e-15).all()
        assert (found <= upper + 1e-15).all()


@pytest.mark.parametrize("project", [projections.kl, projections.euclidean])
@pytest.mark.parametrize("rounding", [0, 1e-13, -1e-13])
def test_bounds_that_leave_no_choice_need_not_sum_to_one_exactly(project, rounding):
    """Bounds such as epochs · tokens / budget may miss 1 by their rounding."""
    weights, only = np.array([0.2, 0.2, 0.6]), np.array([0.5, 0.3, 0.2 + rounding])
    bounds = [(only, only), (only, np.ones(3)) if rounding > 0 else (np.zeros(3), only)]
    for lower, upper in bounds:
        found = project(weights, lower=lower, upper=upper)
        np.testing.assert_allclose(found, only, atol=2e-13)
        assert abs(found.sum() - 1) < 3e-16


def test_impossible_bounds_are_refused():
    weights = np.full(3, 1 / 3)
    with pytest.raises(InputError, match=r"lower ones sum to 1\.2 and the upper ones to 3"):
        projections.kl(weights, lower=np.full(3, 0.4), upper=np.ones(3))
    with pytest.raises(InputError, match=r"the upper ones to 0\.9"):
        projections.euclidean(weights, lower=np.zeros(3), upper=np.full(3, 0.3))
    with pytest.raises(InputError, match="the lower must be >= 0"):
        projections.kl(weights, lower=np.array([-0.1, 0, 0]), upper=np.ones(3))
    with pytest.raises(InputError, match="not above the upper"):
        projections.euclidean(weights, lower=np.full(3, 0.3), upper=np.array([0.2, 1, 1]))
