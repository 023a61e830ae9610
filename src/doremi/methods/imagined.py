"""What a method would ask for, worked out without training anything: for plans, prices, job scripts and forecasts.

Runs that are not finished get an imagined outcome: losses that differ a little, a policy's state after a few steps on
made-up statistics. Weights that follow from them mean nothing; which runs are asked for, and how many, does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from doremi.errors import RunFailedError
from doremi.methods.protocol import Answer, Bench, Method, Outcome, Policy, Run, Seen

NUM_UPDATES = 3
MAX_RUNS = 100_000  # a method that asks for ever would hang a plan


Known = Callable[[Run], Outcome | None]


def nothing(run: Run) -> Outcome | None:
    """Nothing is known of any run."""
    return None


def asked(method: Method, bench: Bench, *, known: Known = nothing, alike: bool = False) -> list[Run]:
    """All runs that a method asks for until it can answer, in its order.

    Args:
        method: any.
        bench: what it may know.
        known: the outcome of a run that is finished; None: it is to be imagined.
        alike: whether all imagined runs come out alike, so that what goes on until nothing changes ends at once.
    """
    runs: list[Run] = []
    done: list[Outcome] = []
    while (wanted := method.ask(bench, done)) and len(runs) < MAX_RUNS:
        for run in wanted:
            done.append(known(run) or outcome(run, bench, number=None if alike else len(runs)))
            runs.append(run)
    return runs


def may_end_sooner(method: Method, bench: Bench, *, known: Known = nothing) -> bool:
    """Whether a method may ask for fewer runs than `asked` lists: it does so if they all come out alike."""
    return len(asked(method, bench, known=known, alike=True)) < len(asked(method, bench, known=known))


def known_answer(method: Method, bench: Bench, *, known: Known = nothing) -> Answer | None:
    """The answer of a method; None: a run that it asks for is not known, or it cannot do without one that failed."""
    done: list[Outcome] = []
    while wanted := method.ask(bench, done):
        found = [left for run in wanted if (left := known(run)) is not None]
        if len(found) < len(wanted):
            return None
        done += found
    with suppress(RunFailedError):
        return method.answer(bench, done)
    return None


def outcome(run: Run, bench: Bench, *, number: int | None) -> Outcome:
    """An outcome of a run that was not trained; another ``number`` gives other ones, None the same to every run."""
    rng = np.random.default_rng(0 if number is None else [run.seed, number])
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
