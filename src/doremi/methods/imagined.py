"""What a method would ask for, worked out without training anything: for plans, prices, job scripts and forecasts.

Runs that are not finished get an imagined outcome: losses that differ a little, a policy's state after a few steps on
made-up statistics. Weights that follow from them mean nothing; which runs are asked for, and how many, does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from doremi.methods.protocol import Bench, Method, Outcome, Policy, Run, Seen

NUM_UPDATES = 3
MAX_RUNS = 100_000  # a method that asks for ever would hang a plan


def asked(method: Method, bench: Bench, *, known: Callable[[Run], Outcome | None] = lambda run: None) -> list[Run]:
    """All runs that a method asks for until it can answer, in its order.

    Args:
        method: any.
        bench: what it may know.
        known: the outcome of a run that is finished; None: it is to be imagined.
    """
    runs: list[Run] = []
    done: list[Outcome] = []
    while (wanted := method.ask(bench, done)) and len(runs) < MAX_RUNS:
        for run in wanted:
            done.append(known(run) or outcome(run, bench, number=len(runs)))
            runs.append(run)
    return runs


def outcome(run: Run, bench: Bench, *, number: int) -> Outcome:
    """An outcome of a run that was not trained; another ``number`` gives other ones."""
    rng = np.random.default_rng([run.seed, number])
    return Outcome(
        run,
        nats={name: 3.0 + float(rng.random()) for name in bench.sets},
        realised={name: round(weight * 1000) for name, weight in run.weights.items()},
        state=None if run.policy is None else _state(run.policy, bench, rng),
    )


def _state(policy: Policy, bench: Bench, rng: np.random.Generator) -> object:
    state, k = policy.init(bench), len(bench.names)
    for step in range(1, NUM_UPDATES + 1):
        counts = np.full(k, 100)
        state = policy.update(state, Seen(step, 100 * rng.random(k), counts, np.ones(k, np.int64)))
    return state
