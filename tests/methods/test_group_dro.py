"""Group DRO against a transcription of Algorithm 1, worked-out cases, and properties."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi.errors import InputError, RunFailedError
from doremi.methods import group_dro


def algorithm_1(steps, *, k, step_size, smoothing):
    """Algorithm 1 of the paper in plain Python, one token at a time, plus the rule for absent domains.

    ``steps`` holds for each step a list of (domain, proxy_nats, reference_nats, is_target) per token.
    """
    alpha = [1.0 / k] * k
    latest: dict[int, float] = {}
    trajectory = []
    for tokens in steps:
        for domain in range(k):
            own = [(proxy, reference) for d, proxy, reference, target in tokens if d == domain and target]
            if own:
                latest[domain] = math.fsum(max(p - r, 0.0) for p, r in own) / len(own)
        mean_of_seen = math.fsum(latest.values()) / len(latest)
        excess = [latest.get(domain, mean_of_seen) for domain in range(k)]
        unnormalised = [a * math.exp(step_size * e) for a, e in zip(alpha, excess, strict=True)]
        total = math.fsum(unnormalised)
        alpha = [(1 - smoothing) * u / total + smoothing / k for u in unnormalised]
        trajectory.append(alpha)
    average = [math.fsum(column) / len(steps) for column in zip(*trajectory, strict=True)]
    return trajectory, average


def random_steps(*, k, num_steps, seed):
    """Unequal token counts, a third of the tokens masked, domains often absent, domain k − 1 unseen for 10 steps."""
    rng = np.random.default_rng(seed)
    steps = []
    for step in range(num_steps):
        domains = rng.choice(k if step >= 10 else k - 1, size=rng.integers(3, 40), p=None)
        steps.append([(int(d), rng.gamma(4), rng.gamma(4), rng.random() > 1 / 3) for d in domains])
    return steps


def sums_and_counts(tokens, k):
    sums, counts = np.zeros(k), np.zeros(k, int)
    for domain, proxy, reference, target in tokens:
        if target:
            sums[domain] += max(proxy - reference, 0.0)
            counts[domain] += 1
    return sums, counts


@pytest.mark.parametrize(("step_size", "smoothing"), [(1.0, 1e-3), (0.3, 0.0), (2.0, 0.1)])
def test_agrees_with_algorithm_1_over_50_steps(step_size, smoothing):
    k, steps = 7, random_steps(k=7, num_steps=50, seed=1)
    trajectory, average = algorithm_1(steps, k=k, step_size=step_size, smoothing=smoothing)
    state = group_dro.init([f"d{i}" for i in range(k)], step_size=step_size, smoothing=smoothing)
    for tokens, expected in zip(steps, trajectory, strict=True):
        sums, counts = sums_and_counts(tokens, k)
        state = group_dro.update(state, excess_sums=sums, token_counts=counts)
        np.testing.assert_allclose(state.weights, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(state.average_weights, average, rtol=0, atol=1e-12)


def test_constant_excess_accumulates():
    """From the method's page; restarting from uniform at every step would stay at [0.525, 0.475] for ever."""
    state = group_dro.init(["a", "b"])
    for _ in range(100):
        state = group_dro.update(state, excess_sums=[0.2 * 50, 0.1 * 10], token_counts=[50, 10])
    np.testing.assert_allclose(state.weights, [0.99472637, 0.00527363], rtol=0, atol=5e-9)


def test_one_step_by_hand():
    state = group_dro.update(
        group_dro.init(["a", "b"], smoothing=0.1), excess_sums=[math.log(3) * 4, 0.0], token_counts=[4, 2]
    )
    # α' = (3/2, 1/2), normalised (3/4, 1/4); 0.9 of it + 0.05
    np.testing.assert_allclose(state.weights, [0.725, 0.275], rtol=1e-15)
    np.testing.assert_allclose(state.excess_losses, [math.log(3), 0.0], rtol=1e-15)


def test_minimax_toy_converges_to_its_known_solution():
    """Quadratic losses a/2 (θ − m)²: the saddle point is θ = 1, α = (2/3, 0, 1/3)."""
    a, m = np.array([1.0, 1.0, 4.0]), np.array([-1.0, 0.0, 2.0])
    theta, state = 0.0, group_dro.init(["left", "middle", "right"])
    for _ in range(20_000):
        state = group_dro.update(state, excess_sums=a / 2 * (theta - m) ** 2, token_counts=[1, 1, 1])
        theta -= 0.05 * float(np.sum(state.weights * a * (theta - m)))
    np.testing.assert_allclose(state.average_weights, [2 / 3, 0, 1 / 3], atol=2e-3)


def test_average_leaves_out_the_initial_weights():
    state = group_dro.update(group_dro.init(["a", "b"]), excess_sums=[1.0, 0.0], token_counts=[1, 1])
    np.testing.assert_array_equal(state.average_weights, state.weights)


def test_upstreams_average_counts_the_initial_weights_as_one_more_step():
    state = group_dro.init(["a", "b"], smoothing=0.0)
    np.testing.assert_array_equal(state.average_weights_with_initial, [0.5, 0.5])
    for _ in range(2):  # α = (3/4, 1/4), then (9/10, 1/10)
        state = group_dro.update(state, excess_sums=[math.log(3) * 4, 0.0], token_counts=[4, 2])
    expected = [(0.5 + 0.75 + 0.9) / 3, (0.5 + 0.25 + 0.1) / 3]
    np.testing.assert_allclose(state.average_weights_with_initial, expected, rtol=1e-15)


def test_absent_domains_keep_their_latest_excess_and_unseen_ones_take_the_mean():
    state = group_dro.init(["a", "b", "never"])
    state = group_dro.update(state, excess_sums=[2.0, 0.6, 0.0], token_counts=[2, 2, 0])
    np.testing.assert_allclose(state.excess_losses, [1.0, 0.3, 0.65])
    state = group_dro.update(state, excess_sums=[0.0, 0.5, 0.0], token_counts=[0, 1, 0])
    np.testing.assert_allclose(state.excess_losses, [1.0, 0.5, 0.75])
    state = group_dro.update(state, excess_sums=[0.0, 0.0, 0.0], token_counts=[0, 0, 0])
    np.testing.assert_allclose(state.excess_losses, [1.0, 0.5, 0.75])


def test_a_batch_without_any_target_makes_no_nan():
    state = group_dro.update(group_dro.init(["a", "b"]), excess_sums=[0, 0], token_counts=[0, 0])
    np.testing.assert_array_equal(state.weights, [0.5, 0.5])


losses = st.lists(st.floats(0, 50, allow_subnormal=False), min_size=3, max_size=3)


@settings(derandomize=True, max_examples=60)
@given(st.lists(losses, min_size=1, max_size=12), st.permutations(range(3)), st.integers(1, 10**9))
def test_simplex_permutation_and_scale(steps, order, scale):
    """Weights stay on the simplex above the floor; renaming domains permutes them; only E / N matters."""
    state = group_dro.init(["a", "b", "c"])
    permuted = group_dro.init([state.names[i] for i in order])
    for excess in steps:
        sums = np.array(excess)
        state = group_dro.update(state, excess_sums=sums, token_counts=[1, 1, 1])
        permuted = group_dro.update(permuted, excess_sums=sums[list(order)] * scale, token_counts=[scale] * 3)
        assert abs(state.weights.sum() - 1) < 1e-12
        assert (state.weights >= 1e-3 / 3 * (1 - 1e-12)).all()
        np.testing.assert_allclose(permuted.weights, state.weights[list(order)], rtol=1e-9)


def test_huge_excess_does_not_overflow():
    state = group_dro.init(["a", "b"], step_size=100.0)
    for _ in range(3):
        state = group_dro.update(state, excess_sums=[1e4, 0.0], token_counts=[1, 1])
    np.testing.assert_allclose(state.weights, [0.9995, 0.0005])


def test_state_survives_json_exactly_and_continues_identically():
    state = group_dro.init(["a", "b", "c"])
    for step in range(5):
        state = group_dro.update(state, excess_sums=[0.1 * step, 1 / 3, 0], token_counts=[3, 1, 0])
    restored = group_dro.GroupDROState.from_dict(json.loads(json.dumps(state.to_dict())))
    for key, value in state.to_dict().items():
        assert restored.to_dict()[key] == value
    after = [group_dro.update(s, excess_sums=[1, 2, 3], token_counts=[1, 2, 9]) for s in (state, restored)]
    np.testing.assert_array_equal(after[0].weights, after[1].weights)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_excess_names_step_domain_and_value(bad):
    state = group_dro.update(group_dro.init(["a", "b"]), excess_sums=[1, 1], token_counts=[1, 1])
    with pytest.raises(RunFailedError, match=rf"step 2: excess loss sum of domain 'b' is {bad}"):
        group_dro.update(state, excess_sums=[1, bad], token_counts=[1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": []}, "at least one domain"),
        ({"names": ["a", "a"]}, "distinct names"),
        ({"names": ["a"], "step_size": 0}, r"step_size is 0; it must be finite and > 0"),
        ({"names": ["a"], "smoothing": 1.0}, r"smoothing is 1.0; it must be in \[0, 1\)"),
    ],
)
def test_init_refuses(arguments, message):
    names = arguments.pop("names")
    with pytest.raises(InputError, match=message):
        group_dro.init(names, **arguments)


@pytest.mark.parametrize(
    ("sums", "counts", "message"),
    [([1.0], [1], "expected 2"), ([1.0, 0], [-1, 1], ">= 0"), ([1.0, 0], [0, 1], "0 tokens")],
)
def test_update_refuses(sums, counts, message):
    with pytest.raises(ValueError, match=message):
        group_dro.update(group_dro.init(["a", "b"]), excess_sums=sums, token_counts=counts)


def test_a_broken_saved_state_is_refused():
    content = group_dro.init(["a", "b"]).to_dict()
    with pytest.raises(InputError, match="weights has not 2 values"):
        group_dro.GroupDROState.from_dict(content | {"weights": [1.0]})
    with pytest.raises(InputError, match="smoothing"):
        group_dro.GroupDROState.from_dict({k: v for k, v in content.items() if k != "smoothing"})
