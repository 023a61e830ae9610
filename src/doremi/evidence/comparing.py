"""What trained models say about their weights: comparisons of arms, from losses and curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from doremi.evidence.comparison import steps_to_match
from doremi.evidence.outcomes import Judged, judge_together
from doremi.evidence.paired_documents import DocumentComparison, DocumentLosses, compare_documents
from doremi.evidence.speed_up import ExplainedGain, SpeedUp, explained_gain, speed_up
from doremi.evidence.targets import Targets
from doremi.evidence.verdict import Nats, SeedComparison, compare_seeds, summaries_by_seed


@dataclass(frozen=True)
class SummaryCurve:
    """The target's value in the held-out losses of one model while it trained, nats per token."""

    steps: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True)
class Evidence:
    """The models of one weight vector, by seed."""

    losses: Mapping[int, Mapping[str, DocumentLosses]]
    curves: Mapping[int, SummaryCurve]
    steps: int
    flops_per_step: float  # NaN: not known

    @property
    def nats(self) -> dict[int, Nats]:
        """Nats per token by seed and evaluation set."""
        return {seed: nats_per_token(by_set) for seed, by_set in self.losses.items()}


@dataclass(frozen=True)
class Comparison(SeedComparison):
    """Two arms, tuned minus baseline: over seeds, over the documents of the same models, and the steps that are saved.

    ``among_arms`` is the difference in the target, Holm-corrected over all arms that are compared with the control;
    None where the baseline is another arm.
    """

    documents: DocumentComparison
    speed_up: SpeedUp
    among_arms: Judged | None = None


def nats_per_token(losses: Mapping[str, DocumentLosses]) -> dict[str, float]:
    """Held-out loss by evaluation set; every set has a token."""
    return {name: float(found.nats.sum() / found.num_tokens.sum()) for name, found in losses.items()}


def mean_over_seeds(by_seed: Mapping[int, Nats]) -> dict[str, float]:
    """The mean loss of each evaluation set."""
    first, *_ = by_seed.values()
    return {name: float(np.mean([nats[name] for nats in by_seed.values()])) for name in first}


def pairs(arms: Iterable[str], *, control: str, searched: Iterable[str]) -> list[tuple[str, str]]:
    """(tuned, baseline) of every comparison: each arm with the control, and each arm of a search with every rule.

    Arms of a search come first, so that the first pair is what the experiment is for.
    """
    names, found = list(arms), set(searched)
    methods = [name for name in names if name in found and name != control]
    rules = [name for name in names if name not in found and name != control]
    with_control = [(name, control) for name in (*methods, *rules)]
    return [*with_control, *((name, rule) for name in methods for rule in rules)]


def compare(
    runs: Mapping[str, Evidence], pair: tuple[str, str], *, targets: Targets, search_flops: float = 0.0
) -> Comparison:
    """Everything about one pair of weight vectors.

    Args:
        runs: by arm; all scored on the same documents.
        pair: (tuned, baseline). Differences are tuned minus baseline; negative is better.
        targets: what they are compared in; verdict and speed-up are about the chosen one.
        search_flops: what finding the tuned weights cost. NaN: not known.

    Raises:
        InputError: the two share no seed, or did not score the same documents.
    """
    (tuned, baseline), (after, before) = pair, (runs[arm] for arm in pair)
    over = compare_seeds({tuned: after.nats, baseline: before.nats}, tuned=tuned, baseline=baseline, targets=targets)
    documents = compare_documents(
        _mean_losses(after, over.seeds), baseline=_mean_losses(before, over.seeds), targets=targets
    )
    return Comparison(**vars(over), documents=documents, speed_up=_saved(after, before, over.seeds, search_flops))


def with_family(comparisons: Sequence[Comparison], *, control: str) -> list[Comparison]:
    """The comparisons, those with the control Holm-corrected over one another in the target."""
    family = {one.tuned: one.summaries[one.verdict.primary] for one in comparisons if one.baseline == control}
    judged = judge_together(family)
    return [replace(one, among_arms=judged[one.tuned]) if one.baseline == control else one for one in comparisons]


def explained(
    runs: Mapping[str, Evidence], *, baseline: str, control: str, tuned: str, targets: Targets
) -> dict[str, ExplainedGain]:
    """How much of the gain of ``tuned`` the control has as well, in each target."""
    found = {name: summaries_by_seed(runs[name].nats, targets) for name in (baseline, control, tuned)}
    return {
        summary: explained_gain(
            baseline=found[baseline][summary], control=found[control][summary], tuned=found[tuned][summary]
        )
        for summary in found[tuned]
    }


def _saved(after: Evidence, before: Evidence, seeds: Sequence[int], search_flops: float) -> SpeedUp:
    return speed_up(
        {seed: _steps_to_match(after.curves[seed], before.curves[seed]) for seed in seeds},
        baseline_steps=before.steps,
        flops_per_step=before.flops_per_step,
        search_flops=search_flops,
    )


def _mean_losses(run: Evidence, seeds: Sequence[int]) -> dict[str, DocumentLosses]:
    """The mean loss of each document over the seeds: what is left is the choice of documents."""
    first = run.losses[seeds[0]]
    return {
        name: DocumentLosses(np.mean([run.losses[seed][name].nats for seed in seeds], axis=0), losses.num_tokens)
        for name, losses in first.items()
    }


def _steps_to_match(tuned: SummaryCurve, baseline: SummaryCurve) -> float | None:
    return steps_to_match(tuned.steps, tuned.values, baseline.values[-1])
