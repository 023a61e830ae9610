"""Trained arms to `Results`: every number of `results.json`, from losses, curves and what the searches left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from doremi.evidence import curves
from doremi.evidence.answers import FORMAT, Domain
from doremi.evidence.comparing import (
    Comparison,
    Evidence,
    SummaryCurve,
    compare,
    explained,
    mean_over_seeds,
    pairs,
    with_family,
)
from doremi.evidence.recommending import recommend, verdict
from doremi.evidence.schema import Arm, EvaluationSet, Results, mean
from doremi.evidence.searches import Explained, Floor, Search
from doremi.evidence.speed_up import cost
from doremi.evidence.study import Study, TrainedArm
from doremi.evidence.targets import Targets
from doremi.evidence.verdict import Nats, summaries_by_seed


def build(study: Study) -> Results:
    """Work everything out; the control is the first of the arms.

    Raises:
        InputError: the target is none of this study's sets, or two arms that are compared share no seed or did not
            score the same documents.
    """
    targets = study.targets
    evidence = {label: _evidence(arm, targets) for label, arm in study.arms.items()}
    comparisons = _comparisons(study, evidence, targets)
    first = [study.control, *(label for label in study.arms if label != study.control)]
    arms = {label: _arm(study, study.arms[label], evidence[label].nats, targets) for label in first}
    recommendation = recommend(arms, comparisons, control=study.control, verify=study.verify)
    return Results(
        format=FORMAT,
        target=study.target if isinstance(study.target, str) else dict(study.target),
        unit=targets.by_key()[targets.primary].unit,
        sets=dict(study.sets),
        domains={name: Domain(tokens=study.tokens[name], prior=prior) for name, prior in study.prior.items()},
        arms=arms,
        control=study.control,
        comparisons=comparisons,
        verdict=verdict(comparisons, control=study.control, verify=study.verify),
        recommendation=recommendation,
        verify=study.verify,
        searches={label: _search(study, label, evidence, targets) for label in study.searches},
        alarms=list(study.alarms),
        tasks=study.tasks,
        provenance=dict(study.provenance),
    )


def planned_pairs(study: Study) -> list[tuple[str, str]]:
    """The pairs to compare; arms that share another one's models are left out."""
    own = [label for label, arm in study.arms.items() if arm.same_as is None]
    return pairs(own, control=study.control, searched=study.searches)


def _evidence(arm: TrainedArm, targets: Targets) -> Evidence:
    return Evidence(
        losses=arm.losses,
        curves={
            seed: SummaryCurve(curve.steps, curves.summarised(curve, targets)[targets.primary])
            for seed, curve in arm.curves.items()
        },
        steps=arm.steps,
        flops_per_step=arm.train_flops / arm.steps,
    )


def _comparisons(study: Study, evidence: Mapping[str, Evidence], targets: Targets) -> list[Comparison]:
    found = [
        compare(evidence, pair, targets=targets, search_flops=study.arms[pair[0]].search_flops)
        for pair in planned_pairs(study)
    ]
    return with_family(found, control=study.control)


def _arm(study: Study, arm: TrainedArm, nats: Mapping[int, Nats], targets: Targets) -> Arm:
    means = mean_over_seeds(nats)
    return Arm(
        method=arm.method,
        weights=None if arm.weights is None else dict(arm.weights),
        seeds=list(nats),
        nats={name: [of_seed[name] for of_seed in nats.values()] for name in means},
        search_flops=_known(arm.search_flops),
        train_flops=_known(arm.train_flops),
        summaries=_by_seed(nats, targets),
        worst_domain=targets.by_key()["worst"].worst_set(means),
        bits_per_byte={name: _bits_per_byte(loss, study.sets[name]) for name, loss in means.items()},
        curve=curves.mean_curve(arm.curves, targets),
        steps=arm.steps,
        num_parameters=arm.num_parameters,
        num_tokens=arm.num_tokens,
        train_seconds=[arm.train_seconds[seed] for seed in nats],
        epochs=dict(arm.epochs),
        folders=[arm.folders[seed] for seed in nats],
        same_as=arm.same_as,
    )


def _by_seed(nats: Mapping[int, Nats], targets: Targets) -> dict[str, list[float | None]]:
    return {key: list(by_seed.values()) for key, by_seed in summaries_by_seed(nats, targets).items()}


def _bits_per_byte(nats: float, text: EvaluationSet) -> float | None:
    return nats * text.tokens / text.bytes / math.log(2) if text.bytes else None


def _search(study: Study, label: str, evidence: Mapping[str, Evidence], targets: Targets) -> Search:
    search = study.searches[label]
    return Search(
        alarms=list(search.alarms),
        costs=dict(search.costs),
        cost=cost(search.flops, main=study.arms[label].train_flops),
        convergence=search.convergence,
        trajectory=search.trajectory,
        floor=_floor(search.floor, evidence, targets),
        explained=_explained(study, label, evidence, targets),
        facts=dict(search.facts),
    )


def _floor(domains: Sequence[str], evidence: Mapping[str, Evidence], targets: Targets) -> Floor | None:
    """How much of the gain came from dropping domains: the summaries without them."""
    kept = [name for name in targets.prior if name not in domains]
    if not domains or not kept:
        return None
    found = {label: _by_seed(run.nats, targets.over(kept)) for label, run in evidence.items()}
    return Floor(
        domains=list(domains),
        summaries={label: {key: mean(values) for key, values in of.items()} for label, of in found.items()},
    )


def _explained(study: Study, label: str, evidence: Mapping[str, Evidence], targets: Targets) -> Explained | None:
    plain = study.searches[label].plain_arm
    if plain is None:
        return None
    found = explained(evidence, baseline=study.control, control=plain, tuned=label, targets=targets)
    return Explained(arm=plain, summaries=found)


def _known(flops: float) -> float | None:
    return None if math.isnan(flops) else flops
