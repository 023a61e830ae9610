"""Results to what makes the weights themselves trustworthy or not: rounds, concentration, drift, alarms. No HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from doremi.evidence.answers import Answers
from doremi.evidence.searches import Search, Trajectory
from doremi.text import visible
from doremi.weights.alarm import Alarm

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


def lead_search(results: Answers) -> Search | None:
    """How the lead's weights were found; None: by a rule."""
    return results.searches.get(results.lead)


def trajectory(results: Answers) -> Trajectory | None:
    """How the lead's weights came about, where that was recorded."""
    search = lead_search(results)
    return search.trajectory if search else None


def alarm_rows(results: Answers) -> list[AlarmRow]:
    """One row a kind, those of no search first; of several searches each alarm says whose it is."""
    alarms = [*results.alarms] + [
        alarm if len(results.searches) == 1 else replace(alarm, finding=f"{label}: {alarm.finding}")
        for label, search in results.searches.items()
        for alarm in search.alarms
    ]
    return [_alarm_row(alarms, kind) for kind in dict.fromkeys(alarm.name for alarm in alarms)]


def _alarm_row(every: Sequence[Alarm], kind: str) -> AlarmRow:
    alarms = [alarm for alarm in every if alarm.name == kind]
    shown = alarms[:MAX_ALARMS_OF_A_KIND]
    return AlarmRow(
        name=visible(kind),
        findings=tuple(visible(alarm.finding) for alarm in shown),
        num_more=len(alarms) - len(shown),
        remedy=visible(alarms[0].remedy),
    )


def round_rows(results: Answers) -> list[RoundRow]:
    """One row for each round of the lead's search."""
    search = lead_search(results)
    changes = search.convergence.changes if search and search.convergence else []
    return [RoundRow(number, change) for number, change in enumerate(changes, start=1)]


def effective_num_domains(weights: Mapping[str, float | None]) -> float:
    """exp(entropy): k for uniform weights over k domains, 1 for a single one."""
    return math.exp(-math.fsum(w * math.log(w) for w in weights.values() if w))


def absent_domains(results: Answers) -> list[str]:
    """Domains that the lead's weights leave out altogether."""
    weights = results.arms[results.lead].weights or {}
    return [visible(name) for name in results.domains if weights.get(name) == 0]


def late_drift(results: Answers) -> float | None:
    """Total variation between the mean of α over the last quarter of the steps and the final ᾱ, as far as recorded."""
    recorded = trajectory(results)
    if recorded is None or not recorded.steps:
        return None
    late = [i for i, step in enumerate(recorded.steps) if step > 0.75 * recorded.steps[-1]]
    distances = [
        abs(_mean([alpha[i] for i in late]) - (recorded.average_weights[name][-1] or 0.0))
        for name, alpha in recorded.dro_weights.items()
        if name in recorded.average_weights
    ]
    return math.fsum(distances) / 2


def largest_spread(results: Answers) -> float | None:
    """The largest standard deviation of a weight over the proxies' seeds; None with one proxy."""
    search = lead_search(results)
    spread = (search and search.convergence and search.convergence.spread) or {}
    return max((value for value in spread.values() if value is not None), default=None)


def _mean(values: Sequence[float | None]) -> float:
    return math.fsum(value or 0.0 for value in values) / len(values)
