"""Comparisons of weight vectors to what is shown of them: which differences, in which order, on which grounds.

No formatting, no HTML. Names leave this file with `escaping.visible` applied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from doremi.evidence.recorded_results import Results
from doremi.evidence.schema import SUMMARIES, Comparison, Differences, Estimate, Judged, Outcome, SpeedUp, Tally
from doremi.report.axes import SignedAxis
from doremi.text import visible

MIN_SEEDS = 3  # `doremi.evidence.statistics.MIN_SEEDS`: with fewer there is no interval over seeds


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
    domains: tuple[ForestRow, ...]
    tally: Tally
    axis: SignedAxis


@dataclass(frozen=True)
class PairRow:
    """One pair in the table of all weight vectors: tuned minus baseline, the summaries in the order of `SUMMARIES`."""

    tuned: str
    baseline: str
    basis: Basis
    outcome: Outcome  # of the verdict: seeds alone give one
    summaries: tuple[Judged, ...]
    tally: Tally
    minimal_detectable_effect: float | None
    speed_up: SpeedUp


@dataclass(frozen=True)
class ExplainedRow:
    """How much of the gain in one summary the control has as well."""

    label: str
    share: Estimate


def basis(comparison: Comparison) -> Basis:
    """Seeds, if there are enough for an interval; else documents, which cannot see the noise of another seed."""
    return Basis.SEEDS if len(comparison.seeds) >= MIN_SEEDS else Basis.DOCUMENTS


def differences(comparison: Comparison) -> Differences:
    """The differences with intervals on the `basis` of the comparison."""
    return comparison if basis(comparison) is Basis.SEEDS else comparison.documents


def forests(results: Results) -> list[Forest]:
    """One for each pair, in the order of the file."""
    return [forest(comparison) for comparison in results.comparisons]


def forest(comparison: Comparison) -> Forest:
    """All differences of one pair."""
    found = differences(comparison)
    ordered = sorted(found.domains, key=lambda name: _or_last(found.domains[name].value))
    return Forest(
        tuned=visible(comparison.tuned),
        baseline=visible(comparison.baseline),
        basis=basis(comparison),
        seeds=tuple(comparison.seeds),
        summaries=tuple(ForestRow(label, found.summaries[key]) for key, label in SUMMARIES.items()),
        domains=tuple(ForestRow(visible(name), found.domains[name]) for name in ordered),
        tally=found.tally,
        axis=axis_of({**found.summaries, **found.domains}),
    )


def _or_last(value: float | None) -> float:
    return math.inf if value is None else value


def axis_of(estimates: Mapping[str, Judged]) -> SignedAxis:
    """An axis for all of them."""
    return SignedAxis.covering(
        [found.value for found in estimates.values() if found.value is not None],
        ends=[end for found in estimates.values() if found.ends for end in found.ends],
    )


def pair_rows(results: Results) -> list[PairRow]:
    """One row for each pair, in the order of the file."""
    return [_pair_row(comparison) for comparison in results.comparisons]


def _pair_row(comparison: Comparison) -> PairRow:
    found = differences(comparison)
    return PairRow(
        tuned=visible(comparison.tuned),
        baseline=visible(comparison.baseline),
        basis=basis(comparison),
        outcome=comparison.verdict.outcome,
        summaries=tuple(found.summaries[key] for key in SUMMARIES),
        tally=found.tally,
        minimal_detectable_effect=comparison.verdict.minimal_detectable_effect,
        speed_up=comparison.speed_up,
    )


def explained_rows(results: Results) -> list[ExplainedRow]:
    """One row for each summary; empty where the control was not trained."""
    control = results.control or {}
    return [ExplainedRow(label, control[key].share) for key, label in SUMMARIES.items() if key in control]
