"""DoReMi (Xie et al. 2023, Algorithm 1): a reference, a proxy with Group DRO on excess loss, its average weights.

Iterated (Section 3.2) and over several seeds where that is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from doremi.config import MAX_MODELS, Count, Number, Section, WholeNumber
from doremi.errors import RunFailedError
from doremi.methods import adversary, alarms, rounds
from doremi.methods.alarms import Alarm
from doremi.methods.group_dro import GroupDRO
from doremi.methods.protocol import Answer, Bench, Outcome, Run, Scoring
from doremi.methods.rounds import Progress
from doremi.weights import DomainWeights, specs, uniform


class DoReMi(Section):
    """Group DRO (Algorithm 1 of the paper), how often it is done, and what may be added to it."""

    rounds: Annotated[WholeNumber, Field(ge=1, le=MAX_MODELS)] | Literal["auto"] = Field(
        1,
        description="iterated DoReMi: each further round trains its reference on the weights of the one before; auto: "
        "until no weight changes by more than the tolerance",
    )
    max_rounds: Count = Field(5, ge=1, le=MAX_MODELS, description="of rounds: auto")
    tolerance: Number = Field(1e-3, gt=0, description="largest change of a weight in a round that counts as none")
    seeds: Count = Field(
        1,
        ge=1,
        le=MAX_MODELS,
        description="proxies to train, with as many seeds; the answer is the mean of theirs, with the spread of each "
        "weight. reference_cache: true saves most of the reference's share of the cost",
    )
    objective: Literal["excess", "hardest", "easiest"] = Field(
        "excess",
        description="what raises a domain's weight. excess: loss above the reference's; hardest (the proxy's loss) and "
        "easiest (minus the reference's) are the paper's ablations",
    )
    step_size: Number = Field(1.0, gt=0, description="η: how fast the adversary's weights move")
    smoothing: Number = Field(1e-3, ge=0, lt=1, description="c: share of uniform weights mixed in at every step")
    allow_absent_domains: bool = Field(
        False, description="allow a proxy batch smaller than the number of domains; unbiased, but noisier"
    )
    weights_update: Literal["exact", "delayed"] = Field(
        "exact",
        description="exact: each step's gradient uses the weights of that very step; with several micro-batches a "
        "process, they are all measured first, which adds a forward pass. delayed: it uses those of the step before, "
        "and adds nothing",
    )
    reference_cache: bool = Field(
        False,
        description="store the reference's losses on disk when they are first computed (4 bytes a token), so that "
        "later epochs, seeds and proxies read them",
    )
    reference_cache_dtype: Literal["float32", "float16"] = Field(
        "float32", description="float16 takes half the space and rounds each loss by at most 0.05 %"
    )
    step_size_schedule: Literal["constant", "inverse_sqrt"] = Field(
        "constant", description="beyond the paper. inverse_sqrt: the step size at step t is η / √t"
    )
    excess_ema: Number = Field(
        0.0, ge=0, lt=1, description="beyond the paper: share of the past in a running mean of the excess losses"
    )
    tail_fraction: Number = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the steps, at the end, whose weights are averaged; beyond the paper below 1",
    )
    min_weight: Number | dict[str, Number] = Field(
        0.0, description="beyond the paper: lower bound on every weight, or by domain"
    )
    max_weight: Number | dict[str, Number] = Field(
        1.0, description="beyond the paper: upper bound on every weight, or by domain"
    )
    max_main_epochs: Number | None = Field(
        None,
        gt=0,
        description="beyond the paper: upper bound on each weight such that the main run sees no domain more often",
    )
    projection: Literal["kl", "euclidean"] = Field("kl", description="how weights are brought within these bounds")
    prior: str | dict[str, Number] | None = Field(
        None,
        description="beyond the paper: weights that the adversary is pulled towards, named as `prior` is",
    )
    prior_pull: Number = Field(0.0, ge=0, lt=1, description="how strongly, at every step")
    loss_normalisation: Literal["domain_mean", "self_normalised"] = Field(
        "domain_mean",
        description="weight of a token in the proxy's loss. domain_mean: α_i / N_i, the paper's equation 1; "
        "self_normalised: upstream's α_i / Σ α N, with its average that includes α_0, to compare results with it",
    )
    reference_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the reference's parameters while it is only evaluated"
    )

    @model_validator(mode="after")
    def _prior_is_pulled_towards(self) -> DoReMi:
        if (self.prior is None) != (self.prior_pull == 0):
            raise ValueError("prior and prior_pull go together")
        return self

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
            update_of_weights=self.weights_update,
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
