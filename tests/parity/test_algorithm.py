"""α follows Algorithm 1 of the paper, for any split of the global batch over ranks and micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch

from tests.parity.recorded import NAMES, Step, Token, objective_of, record, take_step

STEP_SIZE, SMOOTHING = 1.0, 1e-3


class Expected(NamedTuple):
    alpha: list[float]
    token_weights: list[float]  # of a token of each domain in the gradient of Eq. 1


def mean_excess(tokens: list[Token]) -> float:
    """The clipped excess, over all tokens of a domain."""
    return math.fsum(max(token.proxy_nats - token.reference_nats, 0.0) for token in tokens) / len(tokens)


def algorithm_1(steps: list[Step]) -> Iterator[Expected]:
    """The paper's loop in plain Python. A domain without targets keeps its latest λ; unseen, it has the mean λ."""
    k = len(NAMES)
    alpha, latest = [1 / k] * k, {}
    for step in steps:
        tokens = step.tokens()
        by_domain = [[token for token in tokens if token.domain == domain] for domain in range(k)]
        latest |= {domain: mean_excess(own) for domain, own in enumerate(by_domain) if own}
        of_the_seen = math.fsum(latest.values()) / len(latest)
        moved = [alpha[i] * math.exp(STEP_SIZE * latest.get(i, of_the_seen)) for i in range(k)]
        alpha = [(1 - SMOOTHING) * value / math.fsum(moved) + SMOOTHING / k for value in moved]
        yield Expected(alpha, [alpha[i] / len(own) if own else 0.0 for i, own in enumerate(by_domain)])


@pytest.fixture(scope="module", params=[False, True], ids=["all domains present", "absences"])
def recording(request):
    steps = record(absences=request.param)
    return steps, list(algorithm_1(steps))


@pytest.mark.parametrize("accumulation", [1, 2, 5])
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_alpha_follows_algorithm_1(recording, tmp_path, num_ranks, accumulation):
    steps, expected = recording
    objective = objective_of(steps, tmp_path / "cache", step_size=STEP_SIZE, smoothing=SMOOTHING)
    for step, (alpha, token_weights) in zip(steps, expected, strict=True):
        take_step(objective, step, num_ranks=num_ranks, accumulation=accumulation)
        np.testing.assert_allclose(objective.dro.weights, alpha, rtol=0, atol=1e-9)
        weights = objective.token_weights(torch.arange(len(NAMES))).numpy()
        np.testing.assert_allclose(weights, token_weights, rtol=1e-9)
    average = [math.fsum(column) / len(steps) for column in zip(*(alpha for alpha, _ in expected), strict=True)]
    np.testing.assert_allclose(list(objective.average_weights.values()), average, rtol=0, atol=1e-9)


def test_the_recording_would_tell_other_algorithms_apart(recording):
    """α moves and stays alive; batches are uneven; rows with more targets count more."""
    steps, expected = recording
    trajectory = np.array([alpha for alpha, _ in expected])
    assert (trajectory.max(axis=0) > 0.5).sum() >= 3
    assert np.median(trajectory.max(axis=1)) < 0.9
    counts = np.array([np.bincount([t.domain for t in step.tokens()], minlength=len(NAMES)) for step in steps])
    assert np.median(counts.max(axis=1) / np.maximum(counts.min(axis=1), 1)) > 2
    clipped = np.maximum(steps[0].proxy_nats - steps[0].reference_nats, 0)
    by_row = clipped.sum(axis=1) / steps[0].is_target.sum(axis=1)
    mean_of_rows = by_row[steps[0].domain_ids == 0].mean()
    assert abs(mean_of_rows - mean_excess([t for t in steps[0].tokens() if t.domain == 0])) > 1e-3
