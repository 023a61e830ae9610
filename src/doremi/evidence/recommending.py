"""Comparisons to the verdict and the recommendation: no more than was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from doremi.evidence.comparing import Comparison
from doremi.evidence.outcomes import Outcome
from doremi.evidence.schema import Arm, Recommendation, Verify

AT_THE_PROXYS_SIZE = "The models are of the proxy's size: nothing is claimed about the main model's."


def verdict(comparisons: Sequence[Comparison], *, control: str, verify: Verify) -> str:
    """What may be said of the arm that the experiment is for: the first that is compared with the control."""
    found = next((one for one in comparisons if one.baseline == control), None)
    sentence = found.verdict.sentence + _correction(found, comparisons) if found else "Nothing was compared."
    return " ".join([sentence, *_limit(verify)])


def recommend(
    arms: Mapping[str, Arm], comparisons: Sequence[Comparison], *, control: str, verify: Verify
) -> Recommendation:
    """The control, unless an arm is shown to be better than it in the target after Holm's correction over the arms."""
    against = [one for one in comparisons if one.baseline == control]
    better = [one for one in against if outcome(one) is Outcome.BETTER]
    if better:
        best = min(better, key=lambda one: one.summaries[one.verdict.primary].value or 0.0)
        arm, reason = best.tuned, f"{best.tuned} is better than {control}{_among(better, against)}."
    else:
        arm, reason = control, f"{control}, the control: {_why_not(against)}."
    weights = arms[arm].weights
    return Recommendation(arm=arm, weights=weights, reason=" ".join([reason, *_limit(verify)]))


def outcome(comparison: Comparison) -> Outcome:
    """The outcome in the target, corrected over the arms where there are several."""
    return (comparison.among_arms or comparison.verdict).outcome


def _correction(found: Comparison, comparisons: Sequence[Comparison]) -> str:
    """What the correction over the arms changes."""
    if found.among_arms is None or found.among_arms.outcome is found.verdict.outcome:
        return ""
    num_arms = sum(one.among_arms is not None for one in comparisons)
    return (
        f" Corrected for asking about {num_arms} arms at once (Holm): {found.among_arms.outcome}, "
        f"p = {found.among_arms.holm_p_value:.2g}."
    )


def _among(better: Sequence[Comparison], against: Sequence[Comparison]) -> str:
    corrected = f" after Holm's correction over {len(against)} arms" if len(against) > 1 else ""
    selected = f"; of {len(better)} arms that are, the one with the lowest loss" if len(better) > 1 else ""
    return corrected + selected


def _why_not(against: Sequence[Comparison]) -> str:
    if not against:
        return "no other arm was compared with it"
    if all(outcome(one) is Outcome.NOT_MEASURED for one in against):
        return f"seed noise is not measured ({against[0].summaries[against[0].verdict.primary].reason})"
    return "no other arm is shown to be better"


def _limit(verify: Verify) -> list[str]:
    return [] if verify.size == "main" else [AT_THE_PROXYS_SIZE.replace("proxy", verify.size)]
