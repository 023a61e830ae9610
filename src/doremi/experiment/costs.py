"""What training took, in seconds, tokens and FLOPs, from the markers of finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doremi import files
from doremi.config import RunName
from doremi.evaluation.perplexity import finite
from doremi.evidence.searches import StageCost
from doremi.experiment import finished, planned_runs
from doremi.models import size as model_size
from doremi.models.size import ModelSize

if TYPE_CHECKING:
    from doremi.experiment.opening import Experiment


def training_flops(experiment: Experiment, model: RunName, *, num_tokens: int) -> float:
    """FLOPs of training one of the recipe's models on that many tokens, as the planner counts them; NaN: not known."""
    size, length = _size(experiment, model)
    return size.training_flops(length) * num_tokens / length


def search_costs(experiment: Experiment, search: Mapping[str, Any]) -> dict[str, StageCost]:
    """What finding the weights took, beside the runs that are compared: without a reference that is the baseline's run.

    Args:
        experiment: with finished searches.
        search: ``provenance`` of ``weights.json``.

    Returns:
        By stage (``reference``, ``proxy``).
    """
    shared = planned_runs.trains_alike(experiment.recipe, "reference", "main")
    costs = _costs(experiment, _references(experiment, search)[1 if shared else 0 :], search)
    return {stage: StageCost(**cost | {"flops": finite(cost["flops"])}) for stage, cost in costs.items()}


def search_flops(experiment: Experiment, search: Mapping[str, Any]) -> dict[str, float]:
    """FLOPs of finding the weights by stage, every reference included: without it there are none. NaN: not known.

    Those of the proxy include the reference's forward passes, also those that the cache of its losses saved. Not
    counted is the proxy's second forward pass where `weights_update: exact` meets several micro-batches, since their
    number depends on the processes that trained it.
    """
    costs = _costs(experiment, _references(experiment, search), search)
    return {stage: cost["flops"] for stage, cost in costs.items()}


def _references(experiment: Experiment, search: Mapping[str, Any]) -> list[Path]:
    return [experiment.directory.round(number, "reference") for number in _rounds(search)]


def _rounds(search: Mapping[str, Any]) -> range:
    return range(1, len(search["rounds"]["weights"]) + 1)


def _costs(experiment: Experiment, references: Sequence[Path], search: Mapping[str, Any]) -> dict[str, Any]:
    proxies = [
        folder for number in _rounds(search) for folder in planned_runs.proxy_folders(experiment, number).values()
    ]
    costs = {"reference": _cost(experiment, "reference", references), "proxy": _cost(experiment, "proxy", proxies)}
    return {name: cost for name, cost in costs.items() if cost is not None}


def _cost(experiment: Experiment, model: RunName, folders: Sequence[Path]) -> dict[str, Any] | None:
    markers = [finished.facts(folder) for folder in folders if files.read_marker(folder) is not None]
    if not markers:
        return None
    num_tokens = sum(marker["num_tokens"] for marker in markers)
    scoring = _scoring_flops(experiment, num_tokens=num_tokens) if model == "proxy" else 0.0
    return {
        "train_seconds": round(sum(marker["train_seconds"] for marker in markers), 3),
        "num_parameters": markers[0]["num_parameters"],
        "num_tokens": num_tokens,
        "flops": training_flops(experiment, model, num_tokens=num_tokens) + scoring,
    }


def _scoring_flops(experiment: Experiment, *, num_tokens: int) -> float:
    """Of the forward pass of the reference, trained here or before, that every step of the proxy needs."""
    if experiment.recipe.reweighting.objective == "hardest":  # the proxy's own loss
        return 0.0
    size, _ = _size(experiment, "reference")
    length = experiment.recipe.training.for_run("proxy").sequence_length
    return size.forward_flops(length) * num_tokens / length


def _size(experiment: Experiment, model: RunName) -> tuple[ModelSize, int]:
    """Of a model, and the length of the rows that it is trained on."""
    recipe = experiment.recipe
    length = recipe.training.for_run(model).sequence_length
    config = getattr(recipe.models, model)
    return model_size.measure(
        config, name=model, sequence_length=length, vocab_size=experiment.store.vocab_size
    ), length
