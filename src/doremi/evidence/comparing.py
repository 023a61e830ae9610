"""What trained models say about their weights: the comparisons of an experiment, from losses and curves to JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from doremi.evidence.comparison import steps_to_match
from doremi.evidence.paired_documents import DocumentLosses, compare_documents
from doremi.evidence.speed_up import explained_gain, speed_up
from doremi.evidence.targets import Targets
from doremi.evidence.verdict import Nats, compare_seeds, summaries_by_seed

SPEED_UP_SUMMARY = "reference_mean"  # what the baseline itself was trained for


@dataclass(frozen=True)
class SummaryCurve:
    """`SPEED_UP_SUMMARY` of the held-out losses of one model while it trained, nats per token."""

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
        """Nats per token by seed, and by domain and set."""
        return {seed: nats_per_token(by_domain) for seed, by_domain in self.losses.items()}


def nats_per_token(losses: Mapping[str, DocumentLosses]) -> dict[str, float]:
    """Loss by domain and set, each of which has a token."""
    return {name: float(found.nats.sum() / found.num_tokens.sum()) for name, found in losses.items()}


def mean_over_seeds(by_seed: Mapping[int, Nats]) -> dict[str, float]:
    """The mean loss of each domain and set."""
    first, *_ = by_seed.values()
    return {name: float(np.mean([nats[name] for nats in by_seed.values()])) for name in first}


def compare(
    runs: Mapping[str, Evidence],
    *,
    tuned: str,
    baseline: str,
    targets: Targets,
    search_flops: float = 0.0,
) -> dict[str, Any]:
    """Everything about one pair of weight vectors: over seeds, over documents, and the steps that are saved.

    Args:
        runs: by name; all scored on the same documents.
        tuned: one of them. Differences are tuned minus baseline; negative is better.
        baseline: another.
        targets: what they are compared in; the verdict rests on the chosen one.
        search_flops: what finding the tuned weights cost. NaN: not known.

    Raises:
        InputError: the two share no seed, or did not score the same documents.
    """
    after, before = runs[tuned], runs[baseline]
    over_seeds = compare_seeds(
        {tuned: after.nats, baseline: before.nats}, tuned=tuned, baseline=baseline, targets=targets
    )
    over_documents = compare_documents(
        _mean_losses(after, over_seeds.seeds),
        baseline=_mean_losses(before, over_seeds.seeds),
        targets=targets,
    )
    saved = speed_up(
        {seed: _steps_to_match(after.curves[seed], before.curves[seed]) for seed in over_seeds.seeds},
        baseline_steps=before.steps,
        flops_per_step=before.flops_per_step,
        search_flops=search_flops,
    )
    return asdict(over_seeds) | {"documents": asdict(over_documents), "speed_up": asdict(saved)}


def explained(
    runs: Mapping[str, Evidence],
    *,
    baseline: str,
    control: str,
    tuned: str,
    targets: Targets,
) -> dict[str, Any]:
    """How much of the gain of ``tuned`` the control has as well, in each target."""
    found = {name: summaries_by_seed(runs[name].nats, targets) for name in (baseline, control, tuned)}
    return {
        summary: asdict(
            explained_gain(
                baseline=found[baseline][summary], control=found[control][summary], tuned=found[tuned][summary]
            )
        )
        for summary in found[tuned]
    }


def _mean_losses(run: Evidence, seeds: Sequence[int]) -> dict[str, DocumentLosses]:
    """The mean loss of each document over the seeds: what is left is the choice of documents."""
    first = run.losses[seeds[0]]
    return {
        name: DocumentLosses(np.mean([run.losses[seed][name].nats for seed in seeds], axis=0), losses.num_tokens)
        for name, losses in first.items()
    }


def _steps_to_match(tuned: SummaryCurve, baseline: SummaryCurve) -> float | None:
    return steps_to_match(tuned.steps, tuned.values, baseline.values[-1])
