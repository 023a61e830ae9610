"""Comparisons of weight vectors to what is shown of them: which differences, in which order, on which grounds.

No formatting, no HTML. Names leave this file with `text.visible` applied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from doremi.evidence.comparing import Comparison
from doremi.evidence.outcomes import Judged, Outcome, Tally
from doremi.evidence.paired_documents import DocumentComparison
from doremi.evidence.recommending import outcome
from doremi.evidence.schema import Results
from doremi.evidence.speed_up import SpeedUp
from doremi.evidence.statistics import MIN_SEEDS, Estimate
from doremi.report.axes import SignedAxis
from doremi.text import visible


class Basis(Enum):
    """What the intervals of a comparison are made from."""

    SEEDS = "seeds"
    DOCUMENTS = "documents"


@dataclass(frozen=True)
class ForestRow:
    """One difference, nats per token; negative is better."""

    name: str
    judged: Judged


@dataclass(frozen=True)
class Forest:
    """All differences of one pair on one axis: the summaries, then the domains from the best to the worst."""

    tuned: str
    baseline: str
    basis: Basis
    seeds: tuple[int, ...]
    summaries: tuple[ForestRow, ...]
    sets: tuple[ForestRow, ...]  # that are not trained on
    domains: tuple[ForestRow, ...]
    tally: Tally
    axis: SignedAxis


@dataclass(frozen=True)
class PairRow:
    """One pair in the table of all arms: tuned minus baseline, the target first among the summaries."""

    tuned: str
    baseline: str
    basis: Basis
    outcome: Outcome  # in the target: seeds alone give one, corrected over the arms
    summaries: tuple[Judged, ...]
    tally: Tally
    minimal_detectable_effect: float | None
    speed_up: SpeedUp


@dataclass(frozen=True)
class ExplainedRow:
    """How much of the gain in one summary the plain arm has as well."""

    label: str
    share: Estimate


def basis(comparison: Comparison) -> Basis:
    """Seeds, if there are enough for an interval; else documents, which cannot see the noise of another seed."""
    return Basis.SEEDS if len(comparison.seeds) >= MIN_SEEDS else Basis.DOCUMENTS


def differences(comparison: Comparison) -> Comparison | DocumentComparison:
    """The differences with intervals on the `basis` of the comparison."""
    return comparison if basis(comparison) is Basis.SEEDS else comparison.documents


def forests(results: Results) -> list[Forest]:
    """One for each pair, in the order of the file."""
    return [forest(comparison, results.summary_labels) for comparison in results.comparisons]


def forest(comparison: Comparison, labels: Mapping[str, str]) -> Forest:
    """All differences of one pair; ``labels`` are those of the summaries by key."""
    found = differences(comparison)
    ordered = sorted(found.domains, key=lambda name: _or_last(found.domains[name].value))
    return Forest(
        tuned=visible(comparison.tuned),
        baseline=visible(comparison.baseline),
        basis=basis(comparison),
        seeds=tuple(comparison.seeds),
        summaries=tuple(ForestRow(label, found.summaries[key]) for key, label in labels.items()),
        sets=tuple(ForestRow(visible(name), judged) for name, judged in found.sets.items()),
        domains=tuple(ForestRow(visible(name), found.domains[name]) for name in ordered),
        tally=found.tally,
        axis=axis_of([*found.summaries.values(), *found.domains.values(), *found.sets.values()]),
    )


def _or_last(value: float | None) -> float:
    return math.inf if value is None else value


def axis_of(estimates: Sequence[Judged]) -> SignedAxis:
    """An axis for all of them."""
    return SignedAxis.covering(
        [found.value for found in estimates if found.value is not None],
        ends=[end for found in estimates if found.ends for end in found.ends],
    )


def pair_rows(results: Results) -> list[PairRow]:
    """One row for each pair, in the order of the file."""
    return [_pair_row(comparison, results.summary_labels) for comparison in results.comparisons]


def _pair_row(comparison: Comparison, labels: Mapping[str, str]) -> PairRow:
    found = differences(comparison)
    return PairRow(
        tuned=visible(comparison.tuned),
        baseline=visible(comparison.baseline),
        basis=basis(comparison),
        outcome=outcome(comparison),
        summaries=tuple(found.summaries[key] for key in labels),
        tally=found.tally,
        minimal_detectable_effect=comparison.verdict.minimal_detectable_effect,
        speed_up=comparison.speed_up,
    )


def explained_rows(results: Results) -> list[ExplainedRow]:
    """One row for each summary; empty where the plain arm was not trained."""
    search = results.searches.get(results.lead)
    found = search.explained.summaries if search and search.explained else {}
    return [ExplainedRow(label, found[key].share) for key, label in results.summary_labels.items() if key in found]
