"""Are the tuned weights better? Paired differences over seeds, and one sentence that claims no more than was seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from doremi.errors import InputError
from doremi.evidence.comparison import summarise
from doremi.evidence.outcomes import Judged, Outcome, Tally, judge, judge_together, tally
from doremi.evidence.statistics import minimal_detectable_effect, over_seeds

SUMMARIES = {"uniform_mean": "uniform mean", "reference_mean": "reference-weighted mean", "worst": "worst domain"}
PRIMARY = "uniform_mean"  # chosen beforehand, for every experiment: the paper's. The verdict rests on it alone

Nats = Mapping[str, float]  # held-out nats per token by domain


@dataclass(frozen=True)
class Verdict:
    """What may be said of tuned against baseline."""

    outcome: Outcome  # of the primary summary
    primary: str
    minimal_detectable_effect: float | None  # nats per token, in the primary summary
    summaries_agree: bool
    sentence: str


@dataclass(frozen=True)
class SeedComparison:
    """Tuned minus baseline over seeds, nats per token: by domain, Holm-corrected, and in the three summaries."""

    tuned: str
    baseline: str
    seeds: list[int]
    unpaired_seeds: list[int]  # that only one of the two runs has; not used
    summaries: dict[str, Judged]
    domains: dict[str, Judged]
    tally: Tally
    verdict: Verdict


def compare_seeds(
    values: Mapping[str, Mapping[int, Nats]], *, tuned: str, baseline: str, reference_weights: Mapping[str, float]
) -> SeedComparison:
    """Compare two weight vectors, each trained with several seeds.

    Each comparison errs 5 % of the time by itself. Several of them in one experiment are several questions: the verdict
    of the one chosen beforehand (DoReMi's against the reference weights) needs no correction for the others.

    Args:
        values: ``values[run][seed][domain]``, held-out nats per token.
        tuned: a run in ``values``.
        baseline: the run that it is compared with.
        reference_weights: of every domain; renormalised.

    Raises:
        InputError: the runs share no seed, have other domains, or a loss is not finite.
    """
    seeds = _paired_seeds(values, tuned, baseline)
    before, after = ({seed: values[run][seed] for seed in seeds} for run in (baseline, tuned))
    names = list(before[seeds[0]])
    _check_nats({baseline: before, tuned: after}, names, reference_weights)
    domains = judge_together(
        {name: over_seeds([after[seed][name] - before[seed][name] for seed in seeds]) for name in names}
    )
    counts = tally(domains)
    differences = _summary_differences(after, before, reference_weights)
    summaries = {summary: judge(over_seeds(by_seed)) for summary, by_seed in differences.items()}
    return SeedComparison(
        tuned=tuned,
        baseline=baseline,
        seeds=seeds,
        unpaired_seeds=sorted(values[tuned].keys() ^ values[baseline].keys()),
        summaries=summaries,
        domains=domains,
        tally=counts,
        verdict=_verdict((tuned, baseline), summaries, counts, differences[PRIMARY]),
    )


def summaries_by_seed(run: Mapping[int, Nats], reference_weights: Mapping[str, float]) -> dict[str, dict[int, float]]:
    """``result[summary][seed]`` in nats per token, for one run's ``run[seed][domain]``."""
    found = {seed: summarise(nats, reference_weights) for seed, nats in run.items()}
    return {summary: {seed: getattr(values, summary) for seed, values in found.items()} for summary in SUMMARIES}


def _summary_differences(
    after: Mapping[int, Nats], before: Mapping[int, Nats], reference_weights: Mapping[str, float]
) -> dict[str, list[float]]:
    tuned, baseline = summaries_by_seed(after, reference_weights), summaries_by_seed(before, reference_weights)
    return {summary: [tuned[summary][seed] - baseline[summary][seed] for seed in after] for summary in SUMMARIES}


def _verdict(
    runs: tuple[str, str], summaries: Mapping[str, Judged], counts: Tally, differences: Sequence[float]
) -> Verdict:
    primary = summaries[PRIMARY]
    measured = primary.outcome is not Outcome.NOT_MEASURED
    detectable = (
        minimal_detectable_effect(float(np.std(differences, ddof=1)), num_seeds=len(differences)) if measured else None
    )
    return Verdict(
        outcome=primary.outcome,
        primary=PRIMARY,
        minimal_detectable_effect=detectable,
        summaries_agree=_agree(summaries),
        sentence=_sentence(runs, summaries, counts, detectable) + _disagreement(summaries),
    )


def _sentence(runs: tuple[str, str], summaries: Mapping[str, Judged], counts: Tally, detectable: float | None) -> str:
    (tuned, baseline), primary = runs, summaries[PRIMARY]
    size = f"{tuned} minus {baseline} is {primary.value:+.3g} nats per token in the {SUMMARIES[PRIMARY]}"
    if detectable is None:
        others = ", ".join(
            f"{summaries[name].value:+.3g} in the {SUMMARIES[name]}" for name in SUMMARIES if name != PRIMARY
        )
        return (
            f"Seed noise not measured ({primary.method.removeprefix('none: ')}): {size}, {others}; whether that is "
            "more than chance, this experiment cannot say."
        )
    size += f" (95 % interval {primary.low:+.3g} to {primary.high:+.3g}, {primary.method})"
    if primary.outcome is Outcome.NO_DIFFERENCE:
        return (
            f"No difference that this experiment can see: {size}, and one of {detectable:.2g} would have been found "
            f"with 80 % probability; {counts}."
        )
    return f"{primary.outcome.capitalize()}: {size}; {counts}."


def _disagreement(summaries: Mapping[str, Judged]) -> str:
    """The summaries can point in opposite directions (gains weighted by the reference, losses on rare domains)."""
    if _agree(summaries) or summaries[PRIMARY].outcome is Outcome.NOT_MEASURED:
        return ""
    others = (f"{label}: {summaries[name].outcome}" for name, label in SUMMARIES.items() if name != PRIMARY)
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
