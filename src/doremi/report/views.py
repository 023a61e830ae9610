"""Results to the rows of what is shown: which rows, in which order, compared with what. No formatting, no HTML.

Page and console table are drawn from these. Names and labels leave this file with `escaping.visible` applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from doremi.evidence.recorded_results import BASELINE, MAIN, Cost, Results, Summaries
from doremi.text import visible

# Muennighoff et al. 2023: up to four epochs are almost as good as new text, then repetition starts to cost.
MAX_HARMLESS_EPOCHS = 4
FLOPS_PER_PARAMETER_AND_TOKEN = 6  # forward and backward, Kaplan et al. 2020


class Metric(Enum):
    """Which held-out loss; the value is the field of `results.Domain`."""

    NATS = "nats"
    BITS_PER_BYTE = "bits_per_byte"


@dataclass(frozen=True)
class DomainRow:
    """One domain. ``losses`` and ``epochs`` are in the order of `Results.run_names`."""

    name: str
    tokens: int
    held_out_tokens: int
    reference_weight: float | None
    doremi_weight: float | None
    losses: tuple[float | None, ...]
    difference: float | None  # main - baseline
    epochs: tuple[float | None, ...]

    @property
    def ratio(self) -> float | None:
        """DoReMi's weight as a multiple of the reference weight."""
        if self.doremi_weight is None or not self.reference_weight:
            return None
        return self.doremi_weight / self.reference_weight


@dataclass(frozen=True)
class SummaryRow:
    """One summary of all domains, in the order of `Results.run_names`; ``names`` are those of the worst domains."""

    label: str
    explanation: str
    values: tuple[float | None, ...]
    difference: float | None  # main - baseline
    names: tuple[str, ...] = ()

    @property
    def best(self) -> float | None:
        """The lowest of the values."""
        return min((value for value in self.values if value is not None), default=None)


@dataclass(frozen=True)
class CostRow:
    """The models of one run, or of one stage of the search."""

    name: str
    weights: str
    seeds: tuple[int, ...]
    steps: int | None
    cost: Cost
    folder: str

    @property
    def flops(self) -> float | None:
        """As the file says (None: not known); in a file without them, an estimate: 6 x parameters x tokens."""
        if "flops" in self.cost.model_fields_set:
            return self.cost.flops
        return FLOPS_PER_PARAMETER_AND_TOKEN * self.cost.num_parameters * self.cost.num_tokens


@dataclass(frozen=True)
class WeightsRow:
    """One domain's weight in every run, in the order of `Results.run_names`."""

    name: str
    weights: tuple[float | None, ...]


def domain_order(results: Results) -> list[str]:
    """Domain names, largest change of weight first."""
    return sorted(results.domains, key=lambda name: -abs(_change(results, name)))


def _change(results: Results, name: str) -> float:
    domain = results.domains[name]
    return difference(domain.doremi_weight, domain.reference_weight) or 0.0


def difference(value: float | None, baseline: float | None) -> float | None:
    """``value - baseline``, or None where one was not measured."""
    return None if value is None or baseline is None else value - baseline


def domain_rows(results: Results, *, metric: Metric = Metric.NATS) -> list[DomainRow]:
    """One row per domain, in `domain_order`."""
    return [_domain_row(results, name, metric) for name in domain_order(results)]


def _domain_row(results: Results, name: str, metric: Metric) -> DomainRow:
    domain = results.domains[name]
    losses: Mapping[str, float | None] = getattr(domain, metric.value)
    return DomainRow(
        name=visible(name),
        tokens=domain.tokens,
        held_out_tokens=domain.held_out_tokens,
        reference_weight=domain.reference_weight,
        doremi_weight=domain.doremi_weight,
        losses=tuple(losses.get(run) for run in results.run_names),
        difference=difference(losses.get(MAIN), losses.get(BASELINE)),
        epochs=tuple(results.runs[run].epochs.get(name) for run in results.run_names),
    )


def summary_rows(results: Results) -> list[SummaryRow]:
    """Uniform mean, reference-weighted mean and worst domain, over all domains."""
    uniform, reference, worst = _summary_rows(results, results.run_names)
    names = tuple(visible(results.worst_domain.get(run) or "-") for run in results.run_names)
    return [uniform, reference, replace(worst, names=names)]


def summary_rows_without_floor(results: Results) -> list[SummaryRow]:
    """The same over the domains above the floor; empty when no domain is at it."""
    return [] if results.without_floor is None else _summary_rows(results.without_floor, results.run_names)


def _summary_rows(summaries: Summaries, run_names: list[str]) -> list[SummaryRow]:
    return [
        _summary_row("uniform mean", "every domain counts the same", summaries.uniform_mean_nats, run_names),
        _summary_row(
            "reference-weighted mean",
            "domains count by their reference weight",
            summaries.reference_mean_nats,
            run_names,
        ),
        _summary_row("worst domain", "the domain with the highest loss", summaries.worst_nats, run_names),
    ]


def _summary_row(label: str, explanation: str, values: Mapping[str, float | None], run_names: list[str]) -> SummaryRow:
    return SummaryRow(
        label=label,
        explanation=explanation,
        values=tuple(values.get(run) for run in run_names),
        difference=difference(values.get(MAIN), values.get(BASELINE)),
    )


def domains_at_floor(results: Results) -> list[str]:
    """The domains that DoReMi all but dropped: below a tenth of their reference weight."""
    return [] if results.without_floor is None else [visible(n) for n in results.without_floor.domains_at_floor]


def speed_up(results: Results) -> float | None:
    """Steps the baseline took over steps main needed for the same loss; None where main did not get there."""
    return results.runs[BASELINE].steps / results.steps_to_match if results.steps_to_match else None


def cost_rows(results: Results) -> list[CostRow]:
    """First what finding the weights took, where it is known, then every run that was compared."""
    search = [CostRow(visible(name), "", (), None, cost, "") for name, cost in results.costs.items()]
    runs = [
        CostRow(visible(name), visible(run.weights), tuple(run.all_seeds), run.steps, run, visible(run.folder))
        for name, run in ((name, results.runs[name]) for name in results.run_names)
    ]
    return search + runs


def total_seconds(rows: list[CostRow]) -> float | None:
    """Training time of all ``rows`` together, of runs that share their models once; None when it is known of none."""
    by_models = {row.folder or row.name: row.cost.train_seconds for row in rows}
    known = [seconds for seconds in by_models.values() if seconds is not None]
    return sum(known) if known else None


def weights_rows(results: Results) -> list[WeightsRow]:
    """The weights that every run was trained on, in `domain_order`."""
    by_run = [results.runs[run].domain_weights for run in results.run_names]
    return [WeightsRow(visible(n), tuple(weights.get(n) for weights in by_run)) for n in domain_order(results)]


def repeated_domains(results: Results, *, max_epochs: float = MAX_HARMLESS_EPOCHS) -> list[str]:
    """Domains that main saw more often than ``max_epochs`` times."""
    seen = results.runs[MAIN].epochs
    return [visible(n) for n in domain_order(results) if (seen.get(n) or 0) > max_epochs]
