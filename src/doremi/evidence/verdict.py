"""Are the tuned weights better? Paired differences over seeds, and one sentence that claims no more than was seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from doremi.errors import InputError
from doremi.evidence.outcomes import Judged, Outcome, Tally, judge, judge_together, tally
from doremi.evidence.parts import Count, Measured
from doremi.evidence.statistics import minimal_detectable_effect, over_seeds
from doremi.evidence.targets import Targets

Nats = Mapping[str, float]  # nats per token by domain and set


@dataclass(frozen=True)
class Verdict:
    """What may be said of tuned against baseline."""

    outcome: Outcome  # of the chosen target
    primary: str  # its key
    minimal_detectable_effect: Measured  # in its unit
    summaries_agree: bool
    sentence: str


@dataclass(frozen=True)
class SeedComparison:
    """Tuned minus baseline over seeds: in every target, and in nats per token by domain and by set, each of these two
    groups Holm-corrected.
    """

    tuned: str
    baseline: str
    seeds: list[Count]
    unpaired_seeds: list[Count]  # that only one of the two runs has; not used
    summaries: dict[str, Judged]  # by key of the target, in its unit
    domains: dict[str, Judged]
    sets: dict[str, Judged]  # text that belongs to no domain
    tally: Tally  # of the domains
    verdict: Verdict


def compare_seeds(
    values: Mapping[str, Mapping[int, Nats]], *, tuned: str, baseline: str, targets: Targets
) -> SeedComparison:
    """Compare two weight vectors, each trained with several seeds.

    Each comparison errs 5 % of the time by itself. Several of them in one experiment are several questions: the verdict
    of the one chosen beforehand needs no correction for the others (for several arms, see `comparing.with_family`).

    Args:
        values: ``values[run][seed][domain or set]``, nats per token.
        tuned: a run in ``values``.
        baseline: the run that it is compared with.
        targets: what they are compared in; the verdict rests on the chosen one.

    Raises:
        InputError: the runs share no seed, have other domains, or a loss is not finite.
    """
    seeds = _paired_seeds(values, tuned, baseline)
    before, after = ({seed: values[run][seed] for seed in seeds} for run in (baseline, tuned))
    names = list(before[seeds[0]])
    _check_nats({baseline: before, tuned: after}, names, targets)
    by_name = {name: over_seeds([after[seed][name] - before[seed][name] for seed in seeds]) for name in names}
    domains = judge_together({name: found for name, found in by_name.items() if name not in targets.sets})
    targets, counts = targets.over(domains), tally(domains)
    differences = _summary_differences(after, before, targets)
    summaries = {summary: judge(over_seeds(by_seed)) for summary, by_seed in differences.items()}
    return SeedComparison(
        tuned=tuned,
        baseline=baseline,
        seeds=seeds,
        unpaired_seeds=sorted(values[tuned].keys() ^ values[baseline].keys()),
        summaries=summaries,
        domains=domains,
        sets=judge_together({name: found for name, found in by_name.items() if name in targets.sets}),
        tally=counts,
        verdict=_verdict((tuned, baseline), summaries, counts, differences[targets.primary], targets),
    )


def summaries_by_seed(run: Mapping[int, Nats], targets: Targets) -> dict[str, dict[int, float]]:
    """``result[target][seed]`` in the target's unit, for one run's ``run[seed][domain or set]``, nats per token."""
    return {key: {seed: target.value(nats) for seed, nats in run.items()} for key, target in targets.by_key().items()}


def _summary_differences(
    after: Mapping[int, Nats], before: Mapping[int, Nats], targets: Targets
) -> dict[str, list[float]]:
    tuned, baseline = summaries_by_seed(after, targets), summaries_by_seed(before, targets)
    return {key: [tuned[key][seed] - baseline[key][seed] for seed in after] for key in tuned}


def _verdict(
    runs: tuple[str, str],
    summaries: Mapping[str, Judged],
    counts: Tally,
    differences: Sequence[float],
    targets: Targets,
) -> Verdict:
    primary = summaries[targets.primary]
    measured = primary.outcome is not Outcome.NOT_MEASURED
    detectable = (
        minimal_detectable_effect(float(np.std(differences, ddof=1)), num_seeds=len(differences)) if measured else None
    )
    sizes = _sizes(summaries, targets)
    return Verdict(
        outcome=primary.outcome,
        primary=targets.primary,
        minimal_detectable_effect=detectable,
        summaries_agree=_agree(summaries),
        sentence=_sentence(runs, primary, counts, detectable, sizes) + _disagreement(summaries, targets),
    )


def _sizes(summaries: Mapping[str, Judged], targets: Targets) -> list[str]:
    """Each difference in words, the chosen target first; a unit stands where it is another one."""
    found = targets.by_key()
    first = found.pop(targets.primary)
    others = [
        f"{summaries[key].value:+.3g}{'' if target.unit == first.unit else f' {target.unit}'} in the {target.label}"
        for key, target in found.items()
    ]
    return [f"{summaries[first.key].value:+.3g} {first.unit} in the {first.label}", *others]


def _sentence(
    runs: tuple[str, str], primary: Judged, counts: Tally, detectable: float | None, sizes: Sequence[str]
) -> str:
    size = f"{runs[0]} minus {runs[1]} is {sizes[0]}"
    if detectable is None:
        return (
            f"Seed noise not measured ({primary.reason}): {size}, {', '.join(sizes[1:])}; "
            "whether that is more than chance, this experiment cannot say."
        )
    size += f" (95 % interval {primary.low:+.3g} to {primary.high:+.3g}, {primary.method})"
    if primary.outcome is Outcome.NO_DIFFERENCE:
        return (
            f"No difference that this experiment can see: {size}, and one of {detectable:.2g} would have been found "
            f"with 80 % probability; {counts}."
        )
    return f"{primary.outcome.capitalize()}: {size}; {counts}."


def _disagreement(summaries: Mapping[str, Judged], targets: Targets) -> str:
    """The summaries can point in opposite directions (gains weighted by the reference, losses on rare domains)."""
    if _agree(summaries) or summaries[targets.primary].outcome is Outcome.NOT_MEASURED:
        return ""
    others = [
        f"{target.label}: {summaries[key].outcome}"
        for key, target in targets.by_key().items()
        if key != targets.primary
    ]
    return f" The summaries disagree ({', '.join(others)})."


def _agree(summaries: Mapping[str, Judged]) -> bool:
    return len({judged.outcome for judged in summaries.values()}) == 1


def _paired_seeds(values: Mapping[str, Mapping[int, Nats]], tuned: str, baseline: str) -> list[int]:
    shared = sorted(values[tuned].keys() & values[baseline].keys())
    if not shared:
        raise InputError(
            f"{tuned!r} has seeds {sorted(values[tuned])} and {baseline!r} has {sorted(values[baseline])}: a "
            "comparison is paired by seed and needs at least one that both have; train both with the same seeds"
        )
    return shared


def _check_nats(runs: Mapping[str, Mapping[int, Nats]], names: Sequence[str], targets: Targets) -> None:
    if unweighted := [name for name in names if name not in targets.prior and name not in targets.sets]:
        raise InputError(f"no reference weight for {', '.join(map(repr, unweighted))}; give one for each domain")
    for run, by_seed in runs.items():
        for seed, nats in by_seed.items():
            if other := sorted(nats.keys() ^ set(names)):
                raise InputError(
                    f"{run!r}, seed {seed}: not the same domains as in the other runs ({', '.join(map(repr, other))}); "
                    "evaluate all of them on the same corpus"
                )
            for name, value in nats.items():
                if not math.isfinite(value):
                    raise InputError(
                        f"{run!r}, seed {seed}: the loss of {name!r} is {value}; it must be finite. Train this run "
                        "again or leave it out"
                    )
