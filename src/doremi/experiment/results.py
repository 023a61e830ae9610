"""``results.json``: every number of a finished comparison, from the runs' folders and the token store."""

from __future__ import annotations

import math
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from doremi import __version__, redaction
from doremi.evaluation import perplexity
from doremi.evidence import comparison
from doremi.evidence.comparing import SPEED_UP_SUMMARY, Evidence, SummaryCurve, compare, explained, mean_over_seeds
from doremi.evidence.paired_documents import DocumentLosses
from doremi.evidence.speed_up import cost
from doremi.evidence.targets import Targets
from doremi.evidence.verdict import Nats
from doremi.experiment import few_shot_runs, finished, planned_runs, scoring
from doremi.experiment.costs import search_costs, search_flops, training_flops
from doremi.experiment.learning_curves import Curve, learning_curve, mean_curve, trajectory
from doremi.experiment.runs import BASELINE, MAIN, TrainingRun
from doremi.methods import alarms as checks
from doremi.weights import rules

if TYPE_CHECKING:
    from doremi.evaluation.perplexity import HeldOutSet
    from doremi.experiment.opening import Experiment
    from doremi.experiment.planned_runs import Comparison

FORMAT = 1
CONTROL = "reference_without_floor"


def collect_results(experiment: Experiment, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Score every compared model and put all numbers together; floats are finite or None.

    Of a run with several seeds, ``nats``, the summaries and the curves are means over them; ``by_seed`` has the rest.
    """
    held_out = scoring.held_out_set(experiment)
    reference, names = dict(experiment.reference_weights), experiment.names
    losses = {
        item.name: {seed: scoring.score(experiment, run, held_out) for seed, run in item.runs.items()}
        for item in comparisons
    }
    run_curves = {
        item.name: {seed: learning_curve(run, reference) for seed, run in item.runs.items()} for item in comparisons
    }
    evidence = {
        item.name: _evidence(experiment, item, losses[item.name], run_curves[item.name]) for item in comparisons
    }
    nats = {run: found.nats for run, found in evidence.items()}
    answer = finished.answer(experiment.directory.weights, names)
    doremi_weights = {name: answer.get(name, 0.0) for name in names}
    floor = rules.floor_domains(reference, doremi_weights)
    search = finished.search(experiment.directory.weights)
    last_proxy = planned_runs.proxy_folders(experiment, len(search["rounds"]["weights"]))[experiment.recipe.seed]
    flops = search_flops(experiment, search)
    targets = Targets(reference, sets=held_out.sets)
    compared = _comparisons(evidence, targets, flops_of_search=math.fsum(flops.values()))
    main = next(found for found in compared if (found["tuned"], found["baseline"]) == (MAIN, BASELINE))
    described = {item.name: _describe(experiment, item, nats[item.name], reference) for item in comparisons}
    return {
        "format": FORMAT,
        "domains": _domains(experiment, held_out, nats, doremi_weights),
        "sets": {name: asdict(found) for name, found in perplexity.describe(held_out).items()},
        "runs": described,
        **_summaries(nats, reference, names),
        "without_floor": _without(floor, nats, reference, names),
        "steps_to_match": main["speed_up"]["steps_to_match"]["value"],
        "num_better": sum(found["value"] < 0 for found in main["domains"].values()),
        "num_worse": sum(found["value"] > 0 for found in main["domains"].values()),
        "num_domains": len(names),
        "verdict": main["verdict"]["sentence"],
        "comparisons": compared,
        "control": _control(evidence, targets),
        "curves": {run: mean_curve(by_seed) for run, by_seed in run_curves.items()},
        "trajectory": trajectory(finished.load_history(last_proxy, names), names),
        "convergence": _convergence(search, doremi_weights, reference),
        "alarms": [*search["alarms"], *_starvation(experiment, nats, doremi_weights)],
        "costs": search_costs(experiment, search),
        "cost": asdict(cost(flops, main=_or_nan(described[MAIN]["flops"]))),
        "tasks": few_shot_runs.ask_all(experiment, comparisons),
        "provenance": _provenance(experiment),
    }


def _or_nan(flops: float | None) -> float:
    return math.nan if flops is None else flops


def _evidence(
    experiment: Experiment,
    item: Comparison,
    losses: Mapping[int, Mapping[str, DocumentLosses]],
    by_seed: Mapping[int, Curve],
) -> Evidence:
    marker = finished.facts(next(iter(item.runs.values())).folder)
    key = f"{SPEED_UP_SUMMARY}_nats"
    return Evidence(
        losses=losses,
        curves={seed: SummaryCurve(curve["steps"], curve[key]) for seed, curve in by_seed.items()},
        steps=marker["steps"],
        flops_per_step=training_flops(experiment, "main", num_tokens=marker["num_tokens"]) / marker["steps"],
    )


def _comparisons(evidence: Mapping[str, Evidence], targets: Targets, *, flops_of_search: float) -> list[dict[str, Any]]:
    """The pairs of runs; only DoReMi's weights cost a search."""
    return [
        compare(
            evidence,
            tuned=tuned,
            baseline=baseline,
            targets=targets,
            search_flops=flops_of_search if tuned == MAIN else 0.0,
        )
        for tuned, baseline in planned_runs.pairs(evidence)
    ]


def _control(evidence: Mapping[str, Evidence], targets: Targets) -> dict[str, Any] | None:
    """How much of DoReMi's gain leaving out the domains at the floor explains, where that was trained."""
    if CONTROL not in evidence:
        return None
    return explained(evidence, baseline=BASELINE, control=CONTROL, tuned=MAIN, targets=targets)


def _domains(
    experiment: Experiment,
    held_out: HeldOutSet,
    nats: Mapping[str, Mapping[int, Nats]],
    doremi_weights: Mapping[str, float],
) -> dict[str, Any]:
    means = {run: mean_over_seeds(by_seed) for run, by_seed in nats.items()}
    bits = {run: perplexity.bits_per_byte(np.array(list(v.values())), held_out).tolist() for run, v in means.items()}
    return {
        name: {
            "tokens": experiment.store.num_tokens(name),
            "held_out_tokens": int(held_out.num_tokens[index]),
            "held_out_documents": len(held_out.documents[index]),
            "reference_weight": experiment.reference_weights[name],
            "doremi_weight": doremi_weights[name],
            "nats": {run: values[name] for run, values in means.items()},
            "bits_per_byte": {run: perplexity.finite(values[index]) for run, values in bits.items()},
        }
        for index, name in enumerate(experiment.names)
    }


def _convergence(
    search: Mapping[str, Any], doremi_weights: Mapping[str, float], reference: Mapping[str, float]
) -> dict[str, Any]:
    """How far the weights moved from the reference weights, over all rounds, and how the rounds went."""
    return {
        "max_change": max(abs(doremi_weights[name] - weight) for name, weight in reference.items()),
        "effective_num_domains": checks.effective_number(doremi_weights),
        "status": search["rounds"]["status"],
        "changes": search["rounds"]["changes"],
        "spread": search["spread"],
    }


def _starvation(
    experiment: Experiment, nats: Mapping[str, Mapping[int, Nats]], answer: Mapping[str, float]
) -> list[dict[str, str]]:
    """Known where the reference is the baseline's run, and a model like it was trained on uniform weights."""
    if "uniform" not in nats or not planned_runs.trains_alike(experiment.recipe, "reference", "main"):
        return []
    seed = experiment.recipe.seed  # the reference's
    alarms = checks.check_starvation(
        answer,
        experiment.reference_weights,
        reference_nats=nats[BASELINE][seed],
        uniform_nats=nats["uniform"][seed],
    )
    return [alarm._asdict() for alarm in alarms]


def _summaries(
    nats: Mapping[str, Mapping[int, Nats]], reference: Mapping[str, float], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Means over seeds; the worst domain is that of the mean losses."""
    found = {
        run: [_summarise(values, reference, names) for values in by_seed.values()] for run, by_seed in nats.items()
    }
    means = {run: _summarise(mean_over_seeds(by_seed), reference, names) for run, by_seed in nats.items()}
    return {
        "uniform_mean_nats": {run: float(np.mean([s.uniform_mean for s in seeds])) for run, seeds in found.items()},
        "reference_mean_nats": {run: float(np.mean([s.reference_mean for s in seeds])) for run, seeds in found.items()},
        "worst_nats": {run: float(np.mean([s.worst for s in seeds])) for run, seeds in found.items()},
        "worst_domain": {run: summary.worst_domain for run, summary in means.items()},
    }


def _summarise(nats: Nats, reference: Mapping[str, float], names: Sequence[str]) -> comparison.Summaries:
    return comparison.summarise({name: nats[name] for name in names}, reference)


def _without(
    floor: Sequence[str],
    nats: Mapping[str, Mapping[int, Nats]],
    reference: Mapping[str, float],
    names: Sequence[str],
) -> dict[str, Any] | None:
    """The summaries without the domains that DoReMi sent to the floor: how much of the gain came from dropping them."""
    kept = [name for name in names if name not in floor]
    if not floor or not kept:
        return None
    return {"domains_at_floor": list(floor), **_summaries(nats, reference, kept)}


def _describe(
    experiment: Experiment, item: Comparison, nats: Mapping[int, Nats], reference: Mapping[str, float]
) -> dict[str, Any]:
    """The first seed's run, the time of all of them, and what differs from seed to seed."""
    first = next(iter(item.runs.values()))
    marker = finished.facts(first.folder)
    by_seed = {str(seed): _describe_seed(experiment, run, nats[seed], reference) for seed, run in item.runs.items()}
    return {
        "weights": item.weights_name,
        "domain_weights": dict(first.sampling_weights),
        "seed": first.seed,
        "seeds": list(item.runs),
        "steps": marker["steps"],
        "num_parameters": marker["num_parameters"],
        "num_tokens": marker["num_tokens"],
        "flops": perplexity.finite(training_flops(experiment, "main", num_tokens=marker["num_tokens"])),
        "train_seconds": round(sum(found["train_seconds"] for found in by_seed.values()), 3),
        "epochs": marker["epochs"],
        "folder": by_seed[str(first.seed)]["folder"],
        "by_seed": by_seed,
    }


def _describe_seed(
    experiment: Experiment, run: TrainingRun, nats: Nats, reference: Mapping[str, float]
) -> dict[str, Any]:
    summary = _summarise(nats, reference, experiment.names)
    return {
        "folder": str(run.folder.relative_to(experiment.directory.root)),
        "train_seconds": finished.facts(run.folder)["train_seconds"],
        "nats": dict(nats),
        "uniform_mean_nats": summary.uniform_mean,
        "reference_mean_nats": summary.reference_mean,
        "worst_nats": summary.worst,
        "worst_domain": summary.worst_domain,
    }


def _provenance(experiment: Experiment) -> dict[str, Any]:
    return {
        "doremi": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "transformers", "tokenizers", "numpy")},
        "corpus_digest": experiment.store.digest,
        "tokenizer_digest": experiment.store.tokenizer_digest,
        "recipe_digest": experiment.recipe.digest,
        "command": redaction.published(shlex.join(["doremi", *sys.argv[1:]])),
    }
