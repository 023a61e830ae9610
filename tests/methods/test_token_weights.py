"""Token weights by hand: Eq. 1 of the paper, and upstream's self-normalised loss."""

from __future__ import annotations

import numpy as np

from doremi.methods import token_weights

ALPHA = np.array([0.5, 0.3, 0.2])
ONES = np.ones(3)


def test_domain_mean_by_hand():
    weights = token_weights.domain_mean(ALPHA, np.array([10.0, 2.0, 0.0]), presence_probabilities=ONES)
    np.testing.assert_allclose(weights, [0.05, 0.15, 0.0], rtol=1e-15)
    often = np.array([1.0, 0.5, 0.25])
    weights = token_weights.domain_mean(ALPHA, np.array([10.0, 2.0, 4.0]), presence_probabilities=often)
    np.testing.assert_allclose(weights, [0.05, 0.3, 0.2], rtol=1e-15)


def test_self_normalised_by_hand():
    """Σ_m α_m N_m = 0.5 · 10 + 0.3 · 2 + 0.2 · 7 = 7."""
    weights = token_weights.self_normalised(ALPHA, np.array([10.0, 2.0, 7.0]), sampling_weights=ONES)
    np.testing.assert_allclose(weights, [0.5 / 7, 0.3 / 7, 0.2 / 7], rtol=1e-15)


def test_self_normalised_divides_by_the_sampling_weights_of_any_scale():
    """a = (1, 1, 1), so that all 20 tokens weigh the same."""
    counts = np.array([10.0, 6.0, 4.0])
    for scale in (1.0, 7.0):
        weights = token_weights.self_normalised(ALPHA, counts, sampling_weights=scale * ALPHA)
        np.testing.assert_allclose(weights, [0.05] * 3, rtol=1e-15)


def test_absent_domains_and_domains_that_are_never_drawn():
    counts, drawn = np.array([10.0, 0.0, 5.0]), np.array([0.5, 0.5, 0.0])
    weights = token_weights.self_normalised(ALPHA, counts, sampling_weights=ONES)
    np.testing.assert_allclose(weights * counts, [5 / 6, 0.0, 1 / 6], rtol=1e-15)  # the others share what b would have
    np.testing.assert_array_equal(
        token_weights.self_normalised(ALPHA, np.array([10.0, 0.0, 0.0]), sampling_weights=drawn), [0.1, 0.1 * 0.6, 0.0]
    )
    for empty in (
        token_weights.self_normalised(ALPHA, np.zeros(3), sampling_weights=ONES),
        token_weights.domain_mean(ALPHA, np.zeros(3), presence_probabilities=ONES),
    ):
        np.testing.assert_array_equal(empty, [0.0, 0.0, 0.0])


def test_both_are_the_same_where_tokens_are_in_proportion_to_the_sampling_weights():
    sampling = np.array([0.2, 0.7, 0.1])
    np.testing.assert_allclose(
        token_weights.self_normalised(ALPHA, 640 * sampling, sampling_weights=sampling),
        token_weights.domain_mean(ALPHA, 640 * sampling, presence_probabilities=ONES),
        rtol=1e-14,
    )
