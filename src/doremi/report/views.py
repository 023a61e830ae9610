"""Results to the rows of what is shown: which rows, in which order, compared with what. No formatting, no HTML.

Page and console table are drawn from these. Names and labels leave this file with `text.visible` applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from doremi.evidence.answers import Answers
from doremi.evidence.schema import Arm, Results
from doremi.evidence.searches import Floor, Search
from doremi.text import visible

# Muennighoff et al. 2023: up to four epochs are almost as good as new text, then repetition starts to cost.
MAX_HARMLESS_EPOCHS = 4
EXPLANATIONS = {
    "uniform_mean": "every domain counts the same",
    "reference_mean": "domains count by their reference weight",
    "worst": "the domain with the highest loss",
    "target": "sets count as the recipe weighs them",
}


class Metric(Enum):
    """Which held-out loss."""

    NATS = "nats"
    BITS_PER_BYTE = "bits_per_byte"


@dataclass(frozen=True)
class DomainRow:
    """One domain, or another evaluation set. ``losses`` and ``epochs`` are in the order of `Results.arm_names`.

    ``answer`` is the weight in the `Results.lead`, and ``difference`` that arm's loss minus the control's.
    """

    name: str
    tokens: int | None  # to train on; None: it is not trained on
    held_out_tokens: int
    prior: float | None
    answer: float | None
    losses: tuple[float | None, ...]
    difference: float | None
    epochs: tuple[float | None, ...]


@dataclass(frozen=True)
class SummaryRow:
    """One summary, in the order of `Results.arm_names`; ``names`` are those of the worst domains."""

    label: str
    explanation: str
    values: tuple[float | None, ...]
    difference: float | None  # lead - control
    names: tuple[str, ...] = ()

    @property
    def best(self) -> float | None:
        """The lowest of the values."""
        return min((value for value in self.values if value is not None), default=None)


@dataclass(frozen=True)
class CostRow:
    """The models of one arm, or of one stage of a search; ``flops`` and ``num_tokens`` of an arm are of one model."""

    name: str
    method: str
    seeds: tuple[int, ...]
    steps: int | None
    num_parameters: int
    num_tokens: int
    flops: float | None
    train_seconds: float | None
    folder: str
    same_as: str | None = None


@dataclass(frozen=True)
class WeightsRow:
    """One domain's weight before, in the lead, and in every arm, in the order of `Answers.arm_names`.

    ``spreads`` are standard deviations over the seeds of a search; None where that has one seed, or is none.
    """

    name: str
    tokens: int
    prior: float | None
    answer: float | None
    weights: tuple[float | None, ...]
    spreads: tuple[float | None, ...]

    @property
    def ratio(self) -> float | None:
        """The answer as a multiple of the prior."""
        return None if self.answer is None or not self.prior else self.answer / self.prior


def domain_order(results: Answers) -> list[str]:
    """Domain names, largest change of weight first."""
    answer = _answer(results)
    return sorted(
        results.domains, key=lambda name: -abs(difference(answer.get(name), results.domains[name].prior) or 0.0)
    )


def priors(results: Answers) -> dict[str, float | None]:
    """The reference weights by domain."""
    return {name: domain.prior for name, domain in results.domains.items()}


def other_sets(results: Results) -> list[str]:
    """The evaluation sets that are no domains, in the order of the file."""
    return [name for name in results.sets if name not in results.domains]


def _answer(results: Answers) -> Mapping[str, float | None]:
    return results.arms[results.lead].weights or {}


def difference(value: float | None, baseline: float | None) -> float | None:
    """``value - baseline``, or None where one was not measured."""
    return None if value is None or baseline is None else value - baseline


def lead_difference(results: Results, values: Mapping[str, float | None]) -> float | None:
    """Lead minus control in one number by arm; None where nothing was compared."""
    if results.headline is None:
        return None
    return difference(values.get(results.lead), values.get(results.control))


def domain_rows(results: Results, *, metric: Metric = Metric.NATS) -> list[DomainRow]:
    """One row per domain, in `domain_order`."""
    return [_domain_row(results, name, metric) for name in domain_order(results)]


def set_rows(results: Results, *, metric: Metric = Metric.NATS) -> list[DomainRow]:
    """One row for each evaluation set that is not trained on."""
    return [_domain_row(results, name, metric) for name in other_sets(results)]


def _domain_row(results: Results, name: str, metric: Metric) -> DomainRow:
    domain, text = results.domains.get(name), results.sets.get(name)
    losses = {arm: _loss(results.arms[arm], name, metric) for arm in results.arm_names}
    return DomainRow(
        name=visible(name),
        tokens=domain.tokens if domain else None,
        held_out_tokens=text.tokens if text else 0,
        prior=domain.prior if domain else None,
        answer=_answer(results).get(name),
        losses=tuple(losses.values()),
        difference=lead_difference(results, losses),
        epochs=tuple(results.arms[arm].epochs.get(name) for arm in results.arm_names),
    )


def _loss(arm: Arm, name: str, metric: Metric) -> float | None:
    return arm.mean_nats(name) if metric is Metric.NATS else arm.bits_per_byte.get(name)


def summary_rows(results: Results) -> list[SummaryRow]:
    """The target, then the others of uniform mean, reference-weighted mean and worst domain."""
    rows = {
        key: _summary_row(results, key, {arm: results.arms[arm].summary(key) for arm in results.arm_names})
        for key in results.summary_labels
    }
    names = tuple(visible(results.arms[arm].worst_domain or "-") for arm in results.arm_names)
    return [*(rows | {"worst": replace(rows["worst"], names=names)}).values()]


def summary_rows_without_floor(results: Results) -> list[SummaryRow]:
    """The same over the domains above the floor; empty when no domain is at it."""
    floor = _floor(results)
    return [] if floor is None else [
        _summary_row(results, key, {arm: floor.summaries.get(arm, {}).get(key) for arm in results.arm_names})
        for key in results.summary_labels
    ]  # fmt: skip


def _summary_row(results: Results, key: str, values: Mapping[str, float | None]) -> SummaryRow:
    return SummaryRow(
        label=results.summary_labels[key],
        explanation=EXPLANATIONS[key],
        values=tuple(values.values()),
        difference=lead_difference(results, values),
    )


def domains_at_floor(results: Answers) -> list[str]:
    """The domains that the lead's weights all but dropped: below a tenth of their reference weight."""
    floor = _floor(results)
    return [] if floor is None else [visible(name) for name in floor.domains]


def _floor(results: Answers) -> Floor | None:
    search = results.searches.get(results.lead)
    return search.floor if search else None


def num_lower(results: Results) -> int:
    """On how many domains the lead's loss is lower than the control's, intervals aside."""
    return sum((row.difference or 0.0) < 0 for row in domain_rows(results))


def num_higher(results: Results) -> int:
    """On how many domains it is higher."""
    return sum((row.difference or 0.0) > 0 for row in domain_rows(results))


def speed_up(results: Results) -> float | None:
    """Steps the control took over steps the lead needed for the same loss; None where it did not get there."""
    return results.headline.speed_up.factor.value if results.headline else None


def cost_rows(results: Results) -> list[CostRow]:
    """First what finding weights took, where it is known, then every arm."""
    return search_rows(results) + [_arm_row(name, results.arms[name]) for name in results.arm_names]


def search_rows(results: Answers) -> list[CostRow]:
    """What finding weights took by stage, where it is known."""
    return [
        CostRow(
            name=visible(stage if len(results.searches) == 1 else f"{label}: {stage}"),
            method="", seeds=(), steps=None, num_parameters=cost.num_parameters, num_tokens=cost.num_tokens,
            flops=cost.flops, train_seconds=cost.train_seconds, folder="",
        )
        for label, found in results.searches.items()
        for stage, cost in found.costs.items()
    ]  # fmt: skip


def _arm_row(name: str, arm: Arm) -> CostRow:
    return CostRow(
        name=visible(name),
        method=visible(arm.method),
        seeds=tuple(arm.seeds),
        steps=arm.steps,
        num_parameters=arm.num_parameters,
        num_tokens=arm.num_tokens,
        flops=arm.train_flops,
        train_seconds=_total([seconds for seconds in arm.train_seconds if seconds is not None]),
        folder=visible(arm.folders[0]) if arm.folders else "",
        same_as=None if arm.same_as is None else visible(arm.same_as),
    )


def total_seconds(rows: list[CostRow]) -> float | None:
    """Training time of all ``rows`` together, models that arms share once; None when it is known of none."""
    return _total([row.train_seconds for row in rows if row.same_as is None and row.train_seconds is not None])


def _total(seconds: list[float]) -> float | None:
    return sum(seconds) if seconds else None


def weights_rows(results: Answers) -> list[WeightsRow]:
    """The weights of every arm, in `domain_order`."""
    weights = [results.arms[arm].weights or {} for arm in results.arm_names]
    spreads = [_spread(results.searches.get(arm)) for arm in results.arm_names]
    return [
        WeightsRow(
            visible(name),
            tokens=results.domains[name].tokens,
            prior=results.domains[name].prior,
            answer=_answer(results).get(name),
            weights=tuple(of.get(name) for of in weights),
            spreads=tuple(of.get(name) for of in spreads),
        )
        for name in domain_order(results)
    ]


def _spread(search: Search | None) -> Mapping[str, float | None]:
    return (search and search.convergence and search.convergence.spread) or {}


def repeated_domains(results: Results, *, max_epochs: float = MAX_HARMLESS_EPOCHS) -> list[str]:
    """Domains that the lead saw more often than ``max_epochs`` times."""
    seen = results.arms[results.lead].epochs
    return [visible(name) for name in domain_order(results) if (seen.get(name) or 0) > max_epochs]
