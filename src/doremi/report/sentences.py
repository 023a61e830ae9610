"""What the page, its Markdown twin and the console say in words, each said once. Plain text, names made visible."""

from __future__ import annotations

import math

from doremi.evidence import recommending
from doremi.evidence.answers import Answers
from doremi.evidence.comparing import Comparison
from doremi.evidence.outcomes import Outcome, Tally
from doremi.evidence.schema import Results
from doremi.evidence.searches import Convergence
from doremi.evidence.speed_up import SpeedUp
from doremi.report import numbers, trust, views
from doremi.report.comparisons import Basis, Forest
from doremi.text import visible

OUTCOMES = {
    Outcome.BETTER: "Better",
    Outcome.WORSE: "Worse",
    Outcome.NO_DIFFERENCE: "No difference seen",
    Outcome.NOT_MEASURED: "Seed noise not measured",
}
NOT_VERIFIED = "Not verified: no model was trained to test these weights, and no claim is made that any are better."
TO_VERIFY = "To verify them: doremi run RECIPE, with the same recipe and --out, compares models trained on each answer."
MAX_NAMED = 8


def outcome(results: Results) -> str | None:
    """The verdict as a word; None in a file without comparisons."""
    return None if results.headline is None else OUTCOMES[recommending.outcome(results.headline)]


def target(results: Results) -> str:
    """What is to be low, in a few words."""
    return next(iter(results.summary_labels.values()))


def target_in_full(results: Results) -> str:
    """The same with its unit, and the weights of a mean over evaluation sets."""
    if isinstance(results.target, str):
        return f"the {target(results)}, in {results.unit}"
    total = math.fsum(results.target.values())
    parts = (f"{weight / total:.3g} x {visible(name)}" for name, weight in results.target.items())
    return f"{' + '.join(parts)}, in {results.unit}"


def recommendation(results: Results) -> str | None:
    """Which weights to take, and why."""
    return visible(results.recommendation.reason) if results.recommendation else None


def basis(forest: Forest) -> str:
    """What the intervals are made from, and what they therefore cannot say."""
    if forest.basis is Basis.SEEDS:
        return f"Over {len(forest.seeds)} seeds: the 95 % intervals are what training again with other seeds may give."
    seeds = "one seed" if len(forest.seeds) == 1 else f"{len(forest.seeds)} seeds"
    return (
        f"Over documents, as {seeds} cannot tell: the 95 % intervals are what other held-out text may give with the "
        "same models. They say nothing about training again with another seed, whose noise is often larger."
    )


def tally(counts: Tally) -> str:
    """On how many domains which outcome was found."""
    if counts.num_not_measured == counts.num_domains:
        return f"no interval on any of {counts.num_domains} domains: too few seeds and too few held-out documents"
    unmeasured = f" (not measured on {counts.num_not_measured})" if counts.num_not_measured else ""
    return (
        f"better on {counts.num_better}, no difference on {counts.num_no_difference}, worse on {counts.num_worse} "
        f"of {counts.num_domains} domains{unmeasured}"
    )


def speed_up(results: Results) -> str:
    """How soon the lead was where the control ended."""
    if results.headline is None:
        return "nothing was compared"
    found, lead = results.headline.speed_up, visible(results.lead)
    goal, steps = f"the final {target(results)} of {visible(results.control)}", results.arms[results.control].steps
    if found.num_seeds > 1 and found.num_reached < found.num_seeds:
        return f"{lead} reached {goal} in {found.num_reached} of {found.num_seeds} seeds"
    if found.steps_to_match.value is None:
        return f"{lead} did not reach {goal} in {numbers.whole(steps)} steps"
    reached = f"{lead} reached {goal} at step {numbers.whole(found.steps_to_match.value)} of {numbers.whole(steps)}"
    return f"{reached}, {_interval_of_factor(results.headline)}"


def _interval_of_factor(comparison: Comparison) -> str:
    factor = comparison.speed_up.factor
    if factor.ends is None:
        return f"no interval: {factor.reason}"
    return f"95 % interval {numbers.interval(factor.ends, numbers.factor)}"


def factor(found: SpeedUp) -> str:
    """The speed-up with its interval, or how often there was one to be had."""
    if found.factor.value is not None:
        return numbers.with_interval(found.factor.value, found.factor.ends, numbers.factor)
    return "not reached" if found.num_seeds == 1 else f"{found.num_reached} of {found.num_seeds} seeds"


def cost(results: Results) -> str | None:
    """What finding the lead's weights took, against training with them once; None where that is not known."""
    search = trust.lead_search(results)
    if search is None or search.cost is None or search.cost.search_over_main is None:
        return None
    stages = " and ".join(map(visible, search.cost.search)) or "no model of its own"
    return (
        f"finding the weights ({stages}) took {numbers.factor(search.cost.search_over_main)} the FLOPs of training "
        "one model with them"
    )


def answers(results: Answers) -> str:
    """Whose answers these are, and which of them the weights file holds."""
    names, num_domains = listed([visible(name) for name in results.arms]), len(results.domains)
    return f"weights for {num_domains} domains by {names}; weights.json holds those of {visible(results.lead)}"


def search_cost(results: Answers) -> str:
    """What all searches took together."""
    rows = views.search_rows(results)
    if not rows:
        return "no model was trained: all answers follow from rules"
    flops = [row.flops for row in rows if row.flops is not None]
    taken = f"{numbers.count(math.fsum(flops))} FLOPs" if len(flops) == len(rows) else "FLOPs that are not known"
    return f"finding the weights took {taken} and {numbers.duration(views.total_seconds(rows))} of training"


def cost_with_search(results: Results) -> str | None:
    """The speed-up if the search is paid for by this one model."""
    found = results.headline and results.headline.speed_up.factor_with_search
    if not found or found.value is None:
        return None
    control = visible(results.control)
    return f"with the search, the final loss of {control} cost {numbers.factor(1 / found.value)} the FLOPs of {control}"


def trust_facts(results: Answers) -> list[tuple[str, str]]:
    """What the weights themselves show, as name and figure."""
    search, absent = trust.lead_search(results), trust.absent_domains(results)
    convergence = search and search.convergence
    facts = []
    if convergence and convergence.max_change is not None:
        facts.append(("largest change of a weight", numbers.percent(convergence.max_change)))
    if convergence and convergence.effective_num_domains is not None:
        before = trust.effective_num_domains(views.priors(results))
        now = f"{convergence.effective_num_domains:.1f} of {len(results.domains)}"
        facts.append(("effective number of domains", f"{now}, before {before:.1f}"))
    facts.append(("domains left out", f"{len(absent)}{': ' if absent else ''}{listed(absent)}"))
    if (drift := trust.late_drift(results)) is not None:
        facts.append(("drift in the last quarter", numbers.percent(drift)))
    if (spread := trust.largest_spread(results)) is not None:
        facts.append(("spread over the proxies' seeds", numbers.percent(spread)))
    return facts


def other_searches(results: Answers) -> list[tuple[str, list[tuple[str, str]]]]:
    """What the weights of every search but the first show, by its label: as `trust_facts`, and how its rounds went."""
    return [
        (visible(label), trust_facts(results.led_by(label)) + _rounds(search.convergence))
        for label, search in [*results.searches.items()][1:]
    ]


def _rounds(convergence: Convergence | None) -> list[tuple[str, str]]:
    if convergence is None or not convergence.changes:
        return []
    changes = ", ".join(map(numbers.percent, convergence.changes))
    return [("largest change in each round", f"{changes}: {visible(convergence.status or 'not judged')}")]


def at_floor(results: Answers) -> str | None:
    """The domains that the lead's weights all but dropped; None: there is none."""
    names = views.domains_at_floor(results)
    return f"at the floor, below a tenth of the reference weight: {listed(names)}" if names else None


def listed(names: list[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def capitalised(sentence: str) -> str:
    """As the beginning of a paragraph; unlike `str.capitalize`, it leaves names and FLOPs as they are."""
    return sentence[:1].upper() + sentence[1:]
