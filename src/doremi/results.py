"""``results.json``: every number of a finished comparison, from the runs' folders and the token store."""

from __future__ import annotations

import logging
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from doremi import __version__, baselines, files, planned_runs, runs
from doremi.errors import InputError
from doremi.evaluation import comparison, curves, perplexity
from doremi.evaluation.perplexity import HeldOutSet
from doremi.reweighting import diagnostics
from doremi.runs import BASELINE, MAIN
from doremi.weights import DomainWeights

if TYPE_CHECKING:
    from doremi.experiment import Experiment
    from doremi.planned_runs import Comparison

logger = logging.getLogger(__name__)

FORMAT = 1
NATS = "held_out.json"
MAX_TRAJECTORY_POINTS = 500


def collect_results(experiment: Experiment, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Score every compared run and put all numbers together; floats are finite or None."""
    store, names = experiment.store, experiment.names
    recipe = experiment.recipe
    held_out = perplexity.collect(
        store,
        names,
        sequence_length=recipe.training.for_run("main").sequence_length,
        max_tokens_per_domain=recipe.evaluation.max_tokens_per_domain,
    )
    nats = {item.name: _score(experiment, item, held_out) for item in comparisons}
    doremi_weights = DomainWeights.from_json(experiment.directory.weights)
    reference = dict(experiment.reference_weights)
    floor = baselines.floor_domains(reference, doremi_weights)
    search = files.read_json(experiment.directory.weights)["provenance"]
    last_proxy = planned_runs.proxy_folders(experiment, len(search["rounds"]["weights"]))[recipe.seed]
    bits = {run: perplexity.bits_per_byte(np.array(list(v.values())), held_out).tolist() for run, v in nats.items()}
    run_curves = {item.name: _curve(item, reference) for item in comparisons}
    differences = {name: nats[MAIN][name] - nats[BASELINE][name] for name in names}
    summaries = _summaries(nats, reference, names)
    return {
        "format": FORMAT,
        "domains": {
            name: {
                "tokens": store.num_tokens(name),
                "held_out_tokens": int(held_out.num_tokens[index]),
                "reference_weight": reference[name],
                "doremi_weight": doremi_weights[name],
                "nats": {run: values[name] for run, values in nats.items()},
                "bits_per_byte": {run: _finite(values[index]) for run, values in bits.items()},
            }
            for index, name in enumerate(names)
        },
        "runs": {item.name: _describe(experiment, item) for item in comparisons},
        **summaries,
        "without_floor": _without(floor, nats, reference, names),
        "steps_to_match": _steps_to_match(run_curves),
        "num_better": sum(value < 0 for value in differences.values()),
        "num_worse": sum(value > 0 for value in differences.values()),
        "num_domains": len(names),
        "verdict": comparison.verdict(
            differences,
            reference_mean_difference=_difference(summaries["reference_mean_nats"]),
            uniform_mean_difference=_difference(summaries["uniform_mean_nats"]),
        ),
        "curves": run_curves,
        "trajectory": trajectory(runs.load_history(last_proxy), names),
        "convergence": {
            "max_change": max(abs(doremi_weights[name] - reference[name]) for name in names),
            "effective_num_domains": diagnostics.effective_number(doremi_weights),
            "status": search["rounds"]["status"],
            "changes": search["rounds"]["changes"],
            "spread": search["spread"],
        },
        "alarms": [*search["alarms"], *_starvation(experiment, nats, doremi_weights)],
        "costs": _costs(experiment, search),
        "provenance": _provenance(experiment),
    }


def _starvation(
    experiment: Experiment, nats: Mapping[str, Mapping[str, float]], answer: Mapping[str, float]
) -> list[dict[str, str]]:
    """Known where the reference is the baseline's run, and a model like it was trained on uniform weights."""
    if "uniform" not in nats or not planned_runs.trains_alike(experiment.recipe, "reference", "main"):
        return []
    alarms = diagnostics.check_starvation(
        answer, experiment.reference_weights, reference_nats=nats[BASELINE], uniform_nats=nats["uniform"]
    )
    return [alarm._asdict() for alarm in alarms]


def _costs(experiment: Experiment, search: Mapping[str, Any]) -> dict[str, Any]:
    """What finding the weights took, over all rounds and seeds; without a reference that is the baseline's run too."""
    numbers = range(1, len(search["rounds"]["weights"]) + 1)
    proxies = [folder for number in numbers for folder in planned_runs.proxy_folders(experiment, number).values()]
    references = [experiment.directory.round(number, "reference") for number in numbers]
    if planned_runs.trains_alike(experiment.recipe, "reference", "main"):
        references = references[1:]
    costs = {"reference": _cost(references), "proxy": _cost(proxies)}
    return {name: cost for name, cost in costs.items() if cost is not None}


def _cost(folders: Sequence[Path]) -> dict[str, Any] | None:
    markers = [marker for folder in folders if (marker := files.read_marker(folder)) is not None]
    if not markers:
        return None
    return {
        "train_seconds": round(sum(marker["train_seconds"] for marker in markers), 3),
        "num_parameters": markers[0]["num_parameters"],
        "num_tokens": sum(marker["num_tokens"] for marker in markers),
    }


def trajectory(history: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """α_t, ᾱ_t and λ_t of the logged steps, thinned to `MAX_TRAJECTORY_POINTS`; the last step is kept."""
    by_step = {entry["step"]: entry for entry in history if f"dro_weights/{names[0]}" in entry}
    steps = sorted(by_step)
    stride = math.ceil(len(steps) / MAX_TRAJECTORY_POINTS) or 1
    steps = steps[::-1][::stride][::-1]
    columns = ("dro_weights", "average_weights", "excess_losses")
    return {"steps": steps} | {
        column: {name: [by_step[step][f"{column}/{name}"] for step in steps] for name in names} for column in columns
    }


def _score(experiment: Experiment, item: Comparison, held_out: HeldOutSet) -> dict[str, float]:
    """Nats per token by domain; kept beside the model, since scoring a large one takes a while."""
    marker = files.read_marker(item.run.folder)
    if marker is None:
        raise InputError(f"{item.name} is not trained yet ({item.run.folder}); `doremi run` trains what is missing")
    path = item.run.folder / NATS
    if path.exists() and (known := files.read_json(path))["digest"] == marker["digest"]:
        return {name: known["nats"][name] for name in held_out.names}
    from transformers import AutoModelForCausalLM

    logger.info("%s: scoring %s held-out tokens", item.name, f"{int(held_out.num_tokens.sum()):,}")
    model = AutoModelForCausalLM.from_pretrained(item.run.folder)
    values = perplexity.nats_per_token(model, held_out, batch_size=experiment.recipe.evaluation.batch_size)
    nats = dict(zip(held_out.names, values.tolist(), strict=True))
    files.write_json(path, {"digest": marker["digest"], "nats": nats})
    return nats


def _curve(item: Comparison, reference: Mapping[str, float]) -> dict[str, Any]:
    curve = curves.curve_from_log(runs.load_history(item.run.folder), item.run.names)
    points = [{name: curve["nats"][name][i] for name in item.run.names} for i in range(len(curve["steps"]))]
    summaries = [comparison.summarise(point, reference) for point in points]
    return curve | {
        "uniform_mean_nats": [summary.uniform_mean for summary in summaries],
        "reference_mean_nats": [summary.reference_mean for summary in summaries],
        "worst_nats": [summary.worst for summary in summaries],
    }


def _steps_to_match(run_curves: Mapping[str, Mapping[str, Any]]) -> float | None:
    """In the reference-weighted mean, what the baseline itself was trained for."""
    main, target = run_curves[MAIN], run_curves[BASELINE]["reference_mean_nats"][-1]
    return comparison.steps_to_match(main["steps"], main["reference_mean_nats"], target)


def _summaries(
    nats: Mapping[str, Mapping[str, float]], reference: Mapping[str, float], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    found = {
        run: comparison.summarise({name: values[name] for name in names}, reference) for run, values in nats.items()
    }
    return {
        "uniform_mean_nats": {run: summary.uniform_mean for run, summary in found.items()},
        "reference_mean_nats": {run: summary.reference_mean for run, summary in found.items()},
        "worst_nats": {run: summary.worst for run, summary in found.items()},
        "worst_domain": {run: summary.worst_domain for run, summary in found.items()},
    }


def _without(
    floor: Sequence[str], nats: Mapping[str, Mapping[str, float]], reference: Mapping[str, float], names: Sequence[str]
) -> dict[str, Any] | None:
    """The summaries without the domains that DoReMi sent to the floor: how much of the gain came from dropping them."""
    kept = [name for name in names if name not in floor]
    if not floor or not kept:
        return None
    return {"domains_at_floor": list(floor), **_summaries(nats, reference, kept)}


def _describe(experiment: Experiment, item: Comparison) -> dict[str, Any]:
    marker = files.read_marker(item.run.folder)
    assert marker is not None
    return {
        "weights": item.weights_name,
        "domain_weights": dict(item.run.sampling_weights),
        "seed": item.run.seed,
        "steps": marker["steps"],
        "num_parameters": marker["num_parameters"],
        "num_tokens": marker["num_tokens"],
        "train_seconds": marker["train_seconds"],
        "epochs": marker["epochs"],
        "folder": str(item.run.folder.relative_to(experiment.directory.root)),
    }


def _provenance(experiment: Experiment) -> dict[str, Any]:
    return {
        "doremi": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "transformers", "tokenizers", "numpy")},
        "corpus_digest": experiment.store.digest,
        "tokenizer_digest": experiment.store.tokenizer_digest,
        "recipe_digest": experiment.recipe.digest,
        "command": " ".join(["doremi", *sys.argv[1:]]),
    }


def _difference(by_run: Mapping[str, float]) -> float:
    return by_run[MAIN] - by_run[BASELINE]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
