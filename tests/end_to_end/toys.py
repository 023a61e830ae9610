"""A method and a policy, one class each: what a user writes, and nothing else in the project knows them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from doremi.errors import RunFailedError
from doremi.methods.protocol import Answer, Policy, Run
from doremi.weights import DomainWeights, uniform


@dataclass(frozen=True)
class Harder:
    """Two small models on uniform weights; each domain in proportion to exp(its last training loss), their mean."""

    sharpness: float = 1.0

    def ask(self, bench, done):
        return [run for run in self._runs(bench) if run not in [outcome.run for outcome in done]]

    def answer(self, bench, done):
        by_run = [next(outcome for outcome in done if outcome.run == run) for run in self._runs(bench)]
        if failed := [outcome for outcome in by_run if outcome.failure]:
            raise RunFailedError(f"harder: {failed[0].failure}")
        nats = {name: np.mean([last(outcome, name) for outcome in by_run]) for name in bench.names}
        return Answer(
            DomainWeights({name: math.exp(self.sharpness * loss) for name, loss in nats.items()}),
            facts={"method": "harder", "nats": {name: float(loss) for name, loss in nats.items()}},
        )

    def _runs(self, bench):
        return [
            Run("proxy", bench.seed + number, uniform(bench.names), label=f"harder, seed {number}")
            for number in range(2)
        ]


def last(outcome, name):
    return [entry[f"train_nats/{name}"] for entry in outcome.history if f"train_nats/{name}" in entry][-1]


@dataclass(frozen=True)
class State:
    weights: np.ndarray
    num_updates: int


@dataclass(frozen=True)
class TowardsLoss(Policy):
    """Sampling weights that move a little towards where the loss is high, after each step."""

    rate: float = 0.1

    @property
    def sees(self):
        return "losses"

    @property
    def when(self):
        return "after"

    def init(self, bench):
        return State(bench.prior.as_array(bench.names), 0)

    def update(self, state, seen):
        losses = seen.sums / np.maximum(seen.token_counts, 1)
        moved = state.weights * np.exp(self.rate * (losses - losses.max()))
        return State(0.95 * moved / moved.sum() + 0.05 / len(moved), state.num_updates + 1)

    def sampling_weights(self, state):
        return state.weights


@dataclass(frozen=True)
class NotANumber(TowardsLoss):
    """A policy with a fault: its weights are no numbers from the second step on."""

    def update(self, state, seen):
        moved = super().update(state, seen)
        return State(moved.weights * math.nan, moved.num_updates) if seen.step >= 2 else moved
