"""Better, worse or neither: what may be said of differences, of which negative is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from doremi.evidence.parts import Count, Measured
from doremi.evidence.statistics import SIGNIFICANCE, Estimate, holm


class Outcome(StrEnum):
    """What a difference at the 5 % level amounts to."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference"
    NOT_MEASURED = "not measured"  # there is no interval


@dataclass(frozen=True)
class Judged(Estimate):
    """A difference and its outcome. The interval is for this difference alone, never widened for many domains."""

    holm_p_value: Measured  # None: one question, chosen beforehand, or no p-value
    outcome: Outcome


@dataclass(frozen=True)
class Tally:
    """On how many domains which outcome was found."""

    num_better: Count
    num_no_difference: Count
    num_worse: Count
    num_not_measured: Count
    num_domains: Count

    def __str__(self) -> str:
        unmeasured = f" (not measured on {self.num_not_measured})" if self.num_not_measured else ""
        return (
            f"better on {self.num_better}, no difference on {self.num_no_difference}, worse on {self.num_worse} of "
            f"{self.num_domains} domains{unmeasured}"
        )


def judge(difference: Estimate) -> Judged:
    """The outcome of one difference that was chosen beforehand."""
    return _judge(difference, difference.p_value, holm_p_value=None)


def judge_together(differences: Mapping[str, Estimate]) -> dict[str, Judged]:
    """The outcome for each domain, Holm-corrected over those that have a p-value."""
    tested = {name: estimate.p_value for name, estimate in differences.items() if estimate.p_value is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {
        name: _judge(estimate, corrected.get(name), holm_p_value=corrected.get(name))
        for name, estimate in differences.items()
    }


def tally(domains: Mapping[str, Judged]) -> Tally:
    """Count the outcomes."""
    outcomes = [judged.outcome for judged in domains.values()]
    return Tally(
        num_better=outcomes.count(Outcome.BETTER),
        num_no_difference=outcomes.count(Outcome.NO_DIFFERENCE),
        num_worse=outcomes.count(Outcome.WORSE),
        num_not_measured=outcomes.count(Outcome.NOT_MEASURED),
        num_domains=len(outcomes),
    )


def _judge(difference: Estimate, deciding_p_value: float | None, *, holm_p_value: float | None) -> Judged:
    return Judged(
        value=difference.value,
        low=difference.low,
        high=difference.high,
        p_value=difference.p_value,
        method=difference.method,
        holm_p_value=holm_p_value,
        outcome=_outcome(difference, deciding_p_value),
    )


def _outcome(difference: Estimate, p_value: float | None) -> Outcome:
    if p_value is None or difference.value is None:
        return Outcome.NOT_MEASURED
    if p_value >= SIGNIFICANCE:
        return Outcome.NO_DIFFERENCE
    return Outcome.BETTER if difference.value < 0 else Outcome.WORSE
