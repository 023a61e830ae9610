"""What the page, its Markdown twin and the console say in words, each said once. Plain text, names made visible."""

from __future__ import annotations

from doremi.evidence.recorded_results import BASELINE, MAIN, Results
from doremi.evidence.schema import Comparison, Outcome, SpeedUp, Tally
from doremi.report import numbers, trust, views
from doremi.report.comparisons import Basis, Forest
from doremi.text import visible

OUTCOMES: dict[Outcome, str] = {
    "better": "Better",
    "worse": "Worse",
    "no difference": "No difference seen",
    "not measured": "Seed noise not measured",
}
GOAL = "the baseline's final reference-weighted mean"
MAX_NAMED = 8


def outcome(results: Results) -> str | None:
    """The verdict as a word; None in a file without comparisons."""
    return None if results.headline is None else OUTCOMES[results.headline.verdict.outcome]


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
    """How soon main was where the baseline ended."""
    steps = numbers.whole(results.runs[BASELINE].steps)
    found = results.headline and results.headline.speed_up
    if found and found.num_seeds > 1 and found.num_reached < found.num_seeds:
        return f"{MAIN} reached {GOAL} in {found.num_reached} of {found.num_seeds} seeds"
    if results.steps_to_match is None:
        return f"{MAIN} did not reach {GOAL} in {steps} steps"
    reached = f"{MAIN} reached {GOAL} at step {numbers.whole(results.steps_to_match)} of {steps}"
    return f"{reached}, {_interval_of_factor(results.headline)}" if results.headline else reached


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
    """What finding the weights took, against training with them once; None where that is not known."""
    if results.cost is None or results.cost.search_over_main is None:
        return None
    stages = " and ".join(map(visible, results.cost.search)) or "no model of its own"
    return (
        f"finding the weights ({stages}) took {numbers.factor(results.cost.search_over_main)} the FLOPs of training "
        "one main model"
    )


def cost_with_search(results: Results) -> str | None:
    """The speed-up if the search is paid for by this one run."""
    found = results.headline and results.headline.speed_up.factor_with_search
    if not found or found.value is None:
        return None
    return f"with the search, the baseline's loss cost {numbers.factor(1 / found.value)} the FLOPs of the baseline"


def trust_facts(results: Results) -> list[tuple[str, str]]:
    """What the weights themselves show, as name and figure."""
    convergence, absent = results.convergence, trust.absent_domains(results)
    facts = []
    if convergence and convergence.max_change is not None:
        facts.append(("largest change of a weight", numbers.percent(convergence.max_change)))
    if convergence and convergence.effective_num_domains is not None:
        before = trust.effective_num_domains(results.runs[BASELINE].domain_weights)
        now = f"{convergence.effective_num_domains:.1f} of {results.num_domains}"
        facts.append(("effective number of domains", f"{now}, before {before:.1f}"))
    facts.append(("domains left out", f"{len(absent)}{': ' if absent else ''}{listed(absent)}"))
    if (drift := trust.late_drift(results)) is not None:
        facts.append(("drift in the last quarter", numbers.percent(drift)))
    if (spread := trust.largest_spread(results)) is not None:
        facts.append(("spread over the proxies' seeds", numbers.percent(spread)))
    return facts


def at_floor(results: Results) -> str | None:
    """The domains that DoReMi all but dropped; None: it dropped none."""
    names = views.domains_at_floor(results)
    return f"at the floor, below a tenth of the reference weight: {listed(names)}" if names else None


def listed(names: list[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def capitalised(sentence: str) -> str:
    """As the beginning of a paragraph; unlike `str.capitalize`, it leaves names and FLOPs as they are."""
    return sentence[:1].upper() + sentence[1:]
