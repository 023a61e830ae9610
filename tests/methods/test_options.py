"""Options beyond the paper: each by hand, off by default, and kept in the saved state."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from doremi.errors import InputError
from doremi.methods import group_dro, projections
from doremi.methods.group_dro_options import GroupDROOptions

NAMES = ("a", "b", "c")


def run(losses, *, step_size=1.0, smoothing=1e-3, **options):
    """The state after one update per row of ``losses`` (nats per token, [T, 3])."""
    state = group_dro.init(NAMES, step_size=step_size, smoothing=smoothing, options=GroupDROOptions(**options))
    for row in losses:
        state = group_dro.update(state, excess_sums=np.array(row) * 100, token_counts=[100] * 3)
    return state


def softmax(values):
    values = np.exp(np.array(values) - np.max(values))
    return values / values.sum()


LOSSES = np.random.default_rng(0).uniform(0, 1, size=(30, 3))


def test_step_sizes_that_shrink_with_the_root_of_the_step():
    """With constant losses and no smoothing, log α grows by η λ Σ 1/√t."""
    state = run([[0.3, 0.1, 0.0]] * 9, smoothing=0, step_size_schedule="inverse_sqrt")
    total = sum(1 / math.sqrt(t) for t in range(1, 10))
    np.testing.assert_allclose(state.weights, softmax([0.3 * total, 0.1 * total, 0]), rtol=1e-12)


def test_smoothed_losses():
    """β = 0.5 on λ = 0.8, 0.4, 0: λ̂ = 0.8, 0.6, 0.3; α from their sum."""
    state = run([[0.8, 0, 0], [0.4, 0, 0], [0.0, 0, 0]], smoothing=0, excess_ema=0.5)
    np.testing.assert_allclose(state.smoothed_losses, [0.3, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(state.excess_losses, [0.0, 0, 0])
    np.testing.assert_allclose(state.weights, softmax([0.8 + 0.6 + 0.3, 0, 0]), rtol=1e-12)


def test_tail_averages():
    weights = [run(LOSSES[:t]).weights for t in range(1, 31)]
    np.testing.assert_allclose(run(LOSSES, average_after=20).average_weights, np.mean(weights[20:], axis=0), rtol=1e-12)
    early = run(LOSSES[:15], average_after=20)
    np.testing.assert_array_equal(early.average_weights, early.weights)


def test_the_pull_towards_a_prior_has_it_as_its_fixed_point():
    """Equal losses: log α − log prior shrinks by the factor 1 − ρ at every step."""
    prior = (0.5, 0.3, 0.2)
    state = run([[0.4, 0.4, 0.4]] * 3, smoothing=0, prior=prior, prior_pull=0.25)
    start = np.log(np.full(3, 1 / 3)) - np.log(prior)
    np.testing.assert_allclose(state.weights, softmax(np.log(prior) + 0.75**3 * start), rtol=1e-12)
    far = run([[0.4, 0.4, 0.4]] * 200, smoothing=0, prior=prior, prior_pull=0.25)
    np.testing.assert_allclose(far.weights, prior, rtol=1e-12)


@pytest.mark.parametrize("projection", ["kl", "euclidean"])
def test_weights_stay_within_their_bounds_at_every_step(projection):
    lower, upper = (0.1, 0.0, 0.05), (1.0, 0.4, 0.3)
    state = group_dro.init(NAMES, options=GroupDROOptions(minimum=lower, maximum=upper, projection=projection))
    for row in [[0.1, 3.0, 0.2], [0.0, 2.0, 0.0], [5.0, 0.0, 0.0]]:
        before = state.weights
        state = group_dro.update(state, excess_sums=np.array(row) * 10, token_counts=[10] * 3)
        free = 0.999 * softmax(np.log(before) + row) + 0.001 / 3
        project = getattr(projections, projection)
        np.testing.assert_allclose(state.weights, project(free, lower=np.array(lower), upper=np.array(upper)))
        assert (state.weights >= lower).all()
        assert (state.weights <= np.array(upper) + 1e-15).all()
        assert abs(state.weights.sum() - 1) < 1e-12


def test_nothing_is_on_by_default():
    assert GroupDROOptions().to_dict() == {}
    plain = run(LOSSES)
    state = group_dro.init(NAMES)
    for row in LOSSES:
        state = group_dro.update(state, excess_sums=row * 100, token_counts=[100] * 3)
    np.testing.assert_array_equal(plain.average_weights, state.average_weights)


def test_a_saved_state_goes_on_bit_for_bit():
    options = {
        "step_size_schedule": "inverse_sqrt", "excess_ema": 0.3, "average_after": 5, "minimum": (0.05, 0.0, 0.1),
        "maximum": (0.6, 0.9, 0.9), "projection": "euclidean", "prior": (0.2, 0.3, 0.5), "prior_pull": 0.1,
    }  # fmt: skip
    state = group_dro.GroupDROState.from_dict(json.loads(json.dumps(run(LOSSES[:10], **options).to_dict())))
    assert state.options == GroupDROOptions(**options)
    for row in LOSSES[10:]:
        state = group_dro.update(state, excess_sums=row * 100, token_counts=[100] * 3)
    np.testing.assert_array_equal(state.average_weights, run(LOSSES, **options).average_weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size_schedule": "linear"}, "step_size_schedule is 'linear'; it must be one of 'constant'"),
        ({"excess_ema": 1.0}, r"excess_ema is 1\.0; it must be in \[0, 1\)"),
        ({"prior": (0.5, 0.3, 0.2), "prior_pull": 1.0}, r"prior_pull is 1\.0; it must be in \[0, 1\)"),
        ({"minimum": (0.5, float("nan"), 0.1)}, "the weight of 'b' has a minimum of nan and a maximum of 1"),
        ({"average_after": -1}, "average_after is -1"),
        ({"prior": (0.5, 0.3, 0.2)}, "prior and prior_pull go together"),
        ({"prior": (0.5, 0.5, 0.0), "prior_pull": 0.1}, "must be above 0 for every domain"),
        ({"minimum": (0.5, 0.5)}, "minimum has 2 values for 3 domains"),
        ({"maximum": (0.2, 0.2, 0.2)}, "no weights between them sum to 1"),
    ],
)
def test_refused(options, message):
    with pytest.raises(InputError, match=message):
        group_dro.init(NAMES, options=GroupDROOptions(**options))
