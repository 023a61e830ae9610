"""DoReMi (Xie et al. 2023, Algorithm 1): a reference, a proxy with Group DRO on excess loss, its average weights.

Iterated (Section 3.2) and over several seeds where that is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from doremi.errors import RunFailedError
from doremi.methods import adversary, alarms, rounds
from doremi.methods.doremi_options import DoReMiOptions
from doremi.methods.group_dro import GroupDRO
from doremi.methods.protocol import Answer, Bench, Outcome, Run, Scoring
from doremi.methods.rounds import Progress
from doremi.weights import DomainWeights, specs, uniform
from doremi.weights.alarm import Alarm


class DoReMi(DoReMiOptions):
    """Iterated Group DRO as a method; its options are those of `DoReMiOptions`."""

    def ask(self, bench: Bench, done: Collection[Outcome]) -> Sequence[Run]:
        """The reference of the first unfinished round, then its proxies; raises what `options` does."""
        return self._search(bench, done).missing

    def answer(self, bench: Bench, done: Collection[Outcome]) -> Answer:
        """The mean over the last round's proxies, with how the rounds went and how far to trust it.

        Raises:
            RunFailedError: a reference or a proxy failed.
        """
        search = self._search(bench, done)
        for outcome in search.failed:
            raise RunFailedError(f"doremi: {outcome.run.label}: {outcome.failure}")
        last = search.finished[-1]
        found = [*_check_rounds(search.progress), *self._check(bench, last)]
        return Answer(last.weights, facts=self._facts(bench, search), alarms=found)

    def _search(self, bench: Bench, done: Collection[Outcome]) -> Search:
        """How far the rounds have got."""
        finished: list[Round] = []
        while True:
            number, prior = len(finished) + 1, (finished[-1].weights if finished else bench.prior)
            reference = None if bench.has_reference else _reference(bench, number, prior)
            missing, failed, _ = _split([] if reference is None else [reference], done)
            if not (missing or failed):
                missing, failed, outcomes = _split(self._proxies(bench, number, reference), done)
            if missing or failed:
                return Search(finished, [] if failed else missing, failed, None)
            finished.append(self._round(bench, outcomes))
            progress = self._judge(bench, finished)
            if progress.is_over:
                return Search(finished, [], [], progress)

    def _proxies(self, bench: Bench, number: int, reference: Run | None) -> list[Run]:
        """Step 2 of a round: the proxy, once for each of ``seeds``."""
        policy = self.policy(bench)
        cache = self.reference_cache_dtype if self.reference_cache else "none"
        return [
            Run(
                "proxy",
                seed,
                uniform(bench.names),
                policy=policy,
                reference=reference,
                scoring=Scoring(self.reference_dtype, cache),
                label=_label("proxy", number, seed, bench.seed),
            )
            for seed in range(bench.seed, bench.seed + self.seeds)
        ]

    def policy(self, bench: Bench) -> GroupDRO:
        """The adversary of a proxy; raises what `adversary.options` does."""
        pulled = specs.resolve(self.prior, bench.setting, bench.names) if self.prior else None
        return GroupDRO(
            step_size=self.step_size,
            smoothing=self.smoothing,
            options=adversary.options(self, bench, prior=pulled),
            target=self.objective,
            loss_normalisation=self.loss_normalisation,
            weights_update=self.weights_update,
            allow_absent_domains=self.allow_absent_domains,
        )

    def _round(self, bench: Bench, outcomes: Sequence[Outcome]) -> Round:
        by_seed = {outcome.run.seed: self._average(outcome) for outcome in outcomes}
        mean = {name: float(np.mean([weights[name] for weights in by_seed.values()])) for name in bench.names}
        return Round(DomainWeights(mean), by_seed, outcomes[0])

    def _average(self, proxy: Outcome) -> DomainWeights:
        state, upstream = proxy.state, self.loss_normalisation == "self_normalised"
        average = state.average_weights_with_initial if upstream else state.average_weights
        return DomainWeights(dict(zip(state.names, average.tolist(), strict=True)))

    def _judge(self, bench: Bench, finished: Sequence[Round]) -> Progress:
        return rounds.judge(
            [bench.prior, *(item.weights for item in finished)],
            tolerance=self.tolerance,
            max_rounds=self.max_rounds if self.rounds == "auto" else self.rounds,
            stop_early=self.rounds == "auto",
        )

    def _check(self, bench: Bench, last: Round) -> Iterator[Alarm]:
        """The alarms that the last round's first proxy and the planned main run give rise to."""
        names, max_epochs = bench.names, bench.setting.max_epochs
        averages = {
            entry["step"]: np.array([entry[f"average_weights/{name}"] for name in names])
            for entry in last.first.history
            if f"average_weights/{names[0]}" in entry
        }
        epochs = {name: weight * bench.main_tokens / bench.tokens[name] for name, weight in last.weights.items()}
        yield from alarms.check_collapse(last.weights)
        yield from alarms.check_drift(names, averages) if self.tail_fraction == 1 else ()
        yield from alarms.check_repetition(epochs, max_epochs=max_epochs)
        yield from alarms.check_batch(bench.rows["proxy"], len(names))

    def _facts(self, bench: Bench, search: Search) -> dict[str, Any]:
        last, progress = search.finished[-1], search.progress
        assert progress is not None
        return {
            "method": "DoReMi: average of the Group DRO weights over the proxy's steps",
            "reference_weights": dict(bench.prior),
            "options": self.model_dump(mode="json"),
            "rounds": {
                "status": progress.status,
                "changes": list(progress.changes),
                "weights": [dict(item.weights) for item in search.finished],
            },
            "by_seed": {str(seed): dict(weights) for seed, weights in last.by_seed.items()},
            "spread": spread(last.by_seed),
        }


class Round(NamedTuple):
    """What one round gave."""

    weights: DomainWeights  # the mean over its proxies
    by_seed: dict[int, DomainWeights]
    first: Outcome  # of its proxies


class Search(NamedTuple):
    """How far the rounds have got."""

    finished: list[Round]
    missing: list[Run]  # to be trained next
    failed: list[Outcome]  # that there is no going on without
    progress: Progress | None  # None while there is more to train


def spread(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, float] | None:
    """The standard deviation of each weight over the proxies' seeds (n − 1); None for a single one."""
    if len(by_seed) < 2:
        return None
    names = next(iter(by_seed.values()))
    return {name: float(np.std([w[name] for w in by_seed.values()], ddof=1)) for name in names}


def _check_rounds(progress: Progress | None) -> Iterator[Alarm]:
    if progress is not None and progress.warning is not None:
        finding, remedy = progress.warning.split(". ", 1)
        yield Alarm("rounds", finding, remedy[0].lower() + remedy[1:])


def _reference(bench: Bench, number: int, prior: DomainWeights) -> Run:
    """Step 1 of a round: the reference model, on the weights of the round before."""
    return Run("reference", bench.seed, prior, label=_label("reference", number, bench.seed, bench.seed))


def _label(name: str, number: int, seed: int, first_seed: int) -> str:
    in_round = "" if number == 1 else f", round {number}"
    return name + in_round + ("" if seed == first_seed else f", seed {seed}")


def _split(runs: Sequence[Run], done: Collection[Outcome]) -> tuple[list[Run], list[Outcome], list[Outcome]]:
    """Runs that are missing, outcomes that failed, and those that did not, in the order of ``runs``."""
    missing, failed, outcomes = [], [], []
    for run in runs:
        outcome = next((outcome for outcome in done if outcome.run == run), None)
        if outcome is None:
            missing.append(run)
        elif outcome.failure is not None:
            failed.append(outcome)
        else:
            outcomes.append(outcome)
    return missing, failed, outcomes
