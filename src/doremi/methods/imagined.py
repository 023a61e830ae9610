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
HARDLY = 1e-9  # relative difference of outcomes that are alike
MAX_RUNS = 100_000  # a method that asks for ever would hang a plan


Known = Callable[[Run], Outcome | None]
Draw = Callable[[int], np.ndarray]  # float64[count] in [0, 1)


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
            done.append(known(run) or outcome(run, bench, number=len(runs), alike=alike))
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


def outcome(run: Run, bench: Bench, *, number: int, alike: bool = False) -> Outcome:
    """An outcome of a run that was not trained.

    Args:
        run: that is imagined to be finished.
        bench: of the experiment.
        number: another one gives another outcome.
        alike: whether outcomes are to differ by less than anybody minds; they still differ, as real ones do.
    """
    draw = _draw_alike(run.seed, number) if alike else np.random.default_rng([run.seed, number]).random
    return Outcome(
        run,
        nats=dict(zip(bench.sets, (3.0 + draw(len(bench.sets))).tolist(), strict=True)),
        realised={name: round(weight * 1000) for name, weight in run.weights.items()},
        state=None if run.policy is None else _state(run.policy, bench, draw),
    )


def _draw_alike(seed: int, number: int) -> Draw:
    common, own = np.random.default_rng(0), np.random.default_rng([seed, number])
    return lambda count: common.random(count) * (1 + HARDLY * own.random(count))


def _state(policy: Policy, bench: Bench, draw: Draw) -> object:
    state, k = policy.init(bench), len(bench.names)
    for step in range(1, NUM_UPDATES + 1):
        held_out = dict.fromkeys(bench.sets, 3.0) if policy.sees == "held_out" else None
        state = policy.update(state, Seen(step, 100 * draw(k), np.full(k, 100), np.ones(k, np.int64), held_out))
    return state
