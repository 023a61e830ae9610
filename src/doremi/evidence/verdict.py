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
from doremi.evidence.summaries import SUMMARIES, Target, key_of, labels, set_weights
from doremi.evidence.summaries import values as summary_values

Nats = Mapping[str, float]  # held-out nats per token by domain


@dataclass(frozen=True)
class Verdict:
    """What may be said of tuned against baseline."""

    outcome: Outcome  # of the primary summary
    primary: str  # the target's summary: chosen beforehand, and the verdict rests on it alone
    minimal_detectable_effect: Measured  # nats per token, in the primary summary
    summaries_agree: bool
    sentence: str


@dataclass(frozen=True)
class SeedComparison:
    """Tuned minus baseline over seeds, nats per token: by domain, Holm-corrected, and in every summary."""

    tuned: str
    baseline: str
    seeds: list[Count]
    unpaired_seeds: list[Count]  # that only one of the two runs has; not used
    summaries: dict[str, Judged]
    domains: dict[str, Judged]
    tally: Tally
    verdict: Verdict


def compare_seeds(
    values: Mapping[str, Mapping[int, Nats]],
    *,
    tuned: str,
    baseline: str,
    reference_weights: Mapping[str, float],
    target: Target = "uniform",
) -> SeedComparison:
    """Compare two weight vectors, each trained with several seeds.

    Each comparison errs 5 % of the time by itself. Several of them in one experiment are several questions: the verdict
    of one chosen beforehand needs no correction for the others (see `comparing.among_arms` for several arms).

    Args:
        values: ``values[run][seed][domain]``, held-out nats per token.
        tuned: a run in ``values``.
        baseline: the run that it is compared with.
        reference_weights: of every domain; renormalised.
        target: what the verdict is about. The sets that it weighs may be more than the domains.

    Raises:
        InputError: the runs share no seed, have other domains, or a loss is not finite.
    """
    seeds = _paired_seeds(values, tuned, baseline)
    before, after = ({seed: values[run][seed] for seed in seeds} for run in (baseline, tuned))
    names = list(before[seeds[0]])
    _check_nats({baseline: before, tuned: after}, names, {**set_weights(target), **reference_weights})
    domains = judge_together(
        {
            name: over_seeds([after[seed][name] - before[seed][name] for seed in seeds])
            for name in names
            if name in reference_weights
        }
    )
    counts = tally(domains)
    differences = _summary_differences(after, before, reference_weights, target)
    summaries = {summary: judge(over_seeds(by_seed)) for summary, by_seed in differences.items()}
    return SeedComparison(
        tuned=tuned,
        baseline=baseline,
        seeds=seeds,
        unpaired_seeds=sorted(values[tuned].keys() ^ values[baseline].keys()),
        summaries=summaries,
        domains=domains,
        tally=counts,
        verdict=_verdict((tuned, baseline), summaries, counts, differences[key_of(target)]),
    )


def summaries_by_seed(
    run: Mapping[int, Nats], reference_weights: Mapping[str, float], target: Target = "uniform"
) -> dict[str, dict[int, float]]:
    """``result[summary][seed]`` in nats per token, for one run's ``run[seed][domain]``; the target first."""
    found = {seed: summary_values(nats, reference_weights, target) for seed, nats in run.items()}
    return {summary: {seed: values[summary] for seed, values in found.items()} for summary in labels(target)}


def _summary_differences(
    after: Mapping[int, Nats], before: Mapping[int, Nats], reference_weights: Mapping[str, float], target: Target
) -> dict[str, list[float]]:
    tuned, baseline = (summaries_by_seed(run, reference_weights, target) for run in (after, before))
    return {summary: [tuned[summary][seed] - baseline[summary][seed] for seed in after] for summary in tuned}


def _verdict(
    runs: tuple[str, str], summaries: Mapping[str, Judged], counts: Tally, differences: Sequence[float]
) -> Verdict:
    """The verdict on the first of ``summaries``, the target."""
    primary, found = next(iter(summaries.items()))
    measured = found.outcome is not Outcome.NOT_MEASURED
    detectable = (
        minimal_detectable_effect(float(np.std(differences, ddof=1)), num_seeds=len(differences)) if measured else None
    )
    return Verdict(
        outcome=found.outcome,
        primary=primary,
        minimal_detectable_effect=detectable,
        summaries_agree=_agree(summaries),
        sentence=_sentence(runs, summaries, counts, detectable) + _disagreement(summaries),
    )


def _sentence(runs: tuple[str, str], summaries: Mapping[str, Judged], counts: Tally, detectable: float | None) -> str:
    (tuned, baseline), ((key, primary), *others) = runs, summaries.items()
    size = f"{tuned} minus {baseline} is {primary.value:+.3g} nats per token in the {_label(key)}"
    if detectable is None:
        beside = ", ".join(f"{judged.value:+.3g} in the {_label(name)}" for name, judged in others)
        return (
            f"Seed noise not measured ({primary.reason}): {size}, {beside}; whether that is "
            "more than chance, this experiment cannot say."
        )
    size += f" (95 % interval {primary.low:+.3g} to {primary.high:+.3g}, {primary.method})"
    if primary.outcome is Outcome.NO_DIFFERENCE:
        return (
            f"No difference that this experiment can see: {size}, and one of {detectable:.2g} would have been found "
            f"with 80 % probability; {counts}."
        )
    return f"{primary.outcome.capitalize()}: {size}; {counts}."


def _label(key: str) -> str:
    return SUMMARIES.get(key, key)


def _disagreement(summaries: Mapping[str, Judged]) -> str:
    """The summaries can point in opposite directions (gains weighted by the reference, losses on rare domains)."""
    (_, primary), *others = summaries.items()
    if _agree(summaries) or primary.outcome is Outcome.NOT_MEASURED:
        return ""
    beside = (f"{_label(name)}: {judged.outcome}" for name, judged in others)
    return f" The summaries disagree ({', '.join(beside)})."


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


def _check_nats(
    runs: Mapping[str, Mapping[int, Nats]], names: Sequence[str], reference_weights: Mapping[str, float]
) -> None:
    if unweighted := [name for name in names if name not in reference_weights]:
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
