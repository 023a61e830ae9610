"""Toy policies, each one class, and what a run of them needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from doremi.methods.protocol import Bench, Policy, Seen
from doremi.weights.specs import Setting
from tests.training.fakes import SEQUENCE_LENGTH, InMemoryStore

STORE = InMemoryStore()


@dataclass(frozen=True)
class Weights:
    """A state: what the policy has come to, and everything that it saw."""

    names: tuple[str, ...]
    weights: np.ndarray  # float64[k]
    rows: np.ndarray  # int64[k], of all steps
    latest: np.ndarray  # float64[k], nats per token
    steps: tuple[int, ...] = ()


class FollowsLosses(Policy):
    """Samples in proportion to the mean losses of the step, raised to the power of 4."""

    sees, when = "losses", "after"

    def init(self, bench):
        k = len(bench.names)
        return Weights(bench.names, np.full(k, 1 / k), np.zeros(k, np.int64), np.ones(k))

    def update(self, state, seen: Seen):
        means = np.divide(seen.sums, seen.token_counts, out=state.latest.copy(), where=seen.token_counts > 0)
        weights = means**4 / (means**4).sum()
        return Weights(state.names, weights, state.rows + seen.row_counts, means, (*state.steps, seen.step))

    def sampling_weights(self, state):
        return state.weights


class WeighsLosses(FollowsLosses):
    """Weighs the loss of this very step with those weights, and samples as the run does."""

    when = "before"

    def sampling_weights(self, state):
        return None

    def loss_weights(self, state):
        return state.weights


class MovesBoth(WeighsLosses):
    """Weighs the loss and moves the sampling, with two domains so rare that most batches lack them."""

    def sampling_weights(self, state):
        rare = state.weights[1:] / 8
        return np.array([1 - rare.sum(), *rare])


def bench(names=STORE.names):
    """What a policy may know before a model is trained."""
    tokens = {name: STORE.num_tokens(name) for name in names}
    return Bench(
        names=names,
        tokens=tokens,
        prior=dict.fromkeys(names, 1 / len(names)),
        sets=names,
        target="worst",
        main_tokens=sum(tokens.values()),
        steps={"reference": 1, "proxy": 1, "main": 1},
        rows={"reference": 1, "proxy": 1, "main": 1},
        has_reference=False,
        seed=0,
        setting=Setting(STORE, SEQUENCE_LENGTH, sum(tokens.values()), 4.0, {}),
    )
