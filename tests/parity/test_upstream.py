"""Upstream's variant, so that results can be compared with it: self-normalised loss, an average that includes α_0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from doremi.errors import InputError
from doremi.training.signals import ExcessLoss
from tests.parity.recorded import NAMES, NUM_ROWS, Step, objective_of, record, rows_of, take_step
from tests.parity.upstream import Upstream

NUM_RANKS = 4
UNIFORM = np.full(5, 0.2)


@pytest.fixture(scope="module")
def steps():
    return record(absences=False)


def rows_on_rank(step: Step, rank: int) -> Step:
    rows = rows_of(rank, 0, num_ranks=NUM_RANKS, accumulation=1)
    chosen = np.zeros(NUM_ROWS, bool)
    chosen[rows] = True
    return replace(step, is_target=step.is_target & chosen[:, None])


def own_loss(objective: ExcessLoss, step: Step) -> float:
    """Σ_j w_j ℓ_j over the batch."""
    weights = objective.token_weights(torch.from_numpy(step.domain_ids)).numpy()
    return float((weights * np.where(step.is_target, step.proxy_nats, 0.0).sum(axis=1)).sum())


@pytest.mark.parametrize("accumulation", [1, 5])
def test_weights_losses_and_answer_are_upstreams(steps, tmp_path, accumulation):
    upstream = Upstream(sampling_weights=UNIFORM.tolist(), eta=1.0, eps=1e-3)
    objective = objective_of(steps, tmp_path / "cache", loss_normalisation="self_normalised")
    for step in steps:
        take_step(objective, step, num_ranks=NUM_RANKS, accumulation=accumulation)
        upstream.update(step.tokens())
        np.testing.assert_allclose(objective.dro.weights, upstream.history[-1], rtol=0, atol=1e-9)
        theirs = upstream.rank_losses([rows_on_rank(step, rank).tokens() for rank in range(NUM_RANKS)])
        ours = [NUM_RANKS * own_loss(objective, rows_on_rank(step, rank)) for rank in range(NUM_RANKS)]
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    np.testing.assert_allclose(objective.dro.average_weights_with_initial, upstream.answer, rtol=0, atol=1e-9)


def test_the_loss_is_upstreams_also_where_sampling_is_not_uniform(steps, tmp_path):
    """α_0 is uniform here and the sampling weights are upstream's there, so only the loss is compared, α given."""
    sampling = np.array([0.4, 0.1, 0.2, 0.05, 0.25])
    objective = objective_of(steps, tmp_path / "cache", loss_normalisation="self_normalised")
    objective.expect_absences(np.ones(5), sampling_weights=sampling)
    upstream = Upstream(sampling_weights=sampling.tolist(), eta=1.0, eps=1e-3)
    for step in steps[:20]:
        take_step(objective, step, num_ranks=1, accumulation=1)
        upstream.history[-1] = objective.dro.weights.tolist()
        np.testing.assert_allclose(own_loss(objective, step), upstream.rank_losses([step.tokens()])[0], rtol=1e-9)


def test_the_variants_differ(steps, tmp_path):
    """Else the tests above would say nothing: by a tenth of a token's weight, and in the third digit of the answer."""
    weights = {}
    for variant in ("domain_mean", "self_normalised"):
        objective = objective_of(steps[:50], tmp_path / "cache", loss_normalisation=variant)
        for step in steps[:50]:
            take_step(objective, step, num_ranks=1, accumulation=1)
        weights[variant] = objective.token_weights(torch.arange(len(NAMES))).numpy()
    assert np.abs(weights["self_normalised"] / weights["domain_mean"] - 1).max() > 0.1
    difference = objective.dro.average_weights_with_initial - objective.dro.average_weights
    assert np.abs(difference).max() > 1e-3


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(InputError, match="is 'mean'; it must be one of 'domain_mean', 'self_normalised'"):
        ExcessLoss(torch.nn.Identity(), names=NAMES, loss_normalisation="mean")
