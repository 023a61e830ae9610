"""Results to what makes the weights themselves trustworthy or not: rounds, concentration, drift, alarms. No HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from doremi.evidence.recorded_results import Results
from doremi.text import visible

MAX_ALARMS_OF_A_KIND = 3  # older files have one alarm for each domain


@dataclass(frozen=True)
class AlarmRow:
    """Alarms of one kind: the first few findings, how many there are, and what to do."""

    name: str
    findings: tuple[str, ...]
    num_more: int
    remedy: str


@dataclass(frozen=True)
class RoundRow:
    """One round of the search and the largest change of a weight in it."""

    number: int
    change: float | None


def alarm_rows(results: Results) -> list[AlarmRow]:
    """One row a kind, in the order of the file."""
    kinds = dict.fromkeys(alarm.name for alarm in results.alarms)
    return [_alarm_row(results, kind) for kind in kinds]


def _alarm_row(results: Results, kind: str) -> AlarmRow:
    alarms = [alarm for alarm in results.alarms if alarm.name == kind]
    shown = alarms[:MAX_ALARMS_OF_A_KIND]
    return AlarmRow(
        name=visible(kind),
        findings=tuple(visible(alarm.finding) for alarm in shown),
        num_more=len(alarms) - len(shown),
        remedy=visible(alarms[0].remedy),
    )


def round_rows(results: Results) -> list[RoundRow]:
    """One row a round."""
    changes = results.convergence.changes if results.convergence else []
    return [RoundRow(number, change) for number, change in enumerate(changes, start=1)]


def effective_num_domains(weights: Mapping[str, float | None]) -> float:
    """exp(entropy): k for uniform weights over k domains, 1 for a single one."""
    return math.exp(-math.fsum(w * math.log(w) for w in weights.values() if w))


def absent_domains(results: Results) -> list[str]:
    """Domains that DoReMi's weights leave out altogether."""
    return [visible(name) for name, domain in results.domains.items() if domain.doremi_weight == 0]


def late_drift(results: Results) -> float | None:
    """Total variation between the mean of α over the last quarter of the steps and the final ᾱ, as far as recorded."""
    trajectory = results.trajectory
    if trajectory is None or not trajectory.steps:
        return None
    late = [i for i, step in enumerate(trajectory.steps) if step > 0.75 * trajectory.steps[-1]]
    distances = [
        abs(_mean([alpha[i] for i in late]) - (trajectory.average_weights[name][-1] or 0.0))
        for name, alpha in trajectory.dro_weights.items()
        if name in trajectory.average_weights
    ]
    return math.fsum(distances) / 2


def largest_spread(results: Results) -> float | None:
    """The largest standard deviation of a weight over the proxies' seeds; None with one proxy."""
    spread = (results.convergence and results.convergence.spread) or {}
    return max((value for value in spread.values() if value is not None), default=None)


def _mean(values: Sequence[float | None]) -> float:
    return math.fsum(value or 0.0 for value in values) / len(values)
