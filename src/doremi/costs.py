"""What training took, in seconds, tokens and FLOPs, from the markers of finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doremi import files, planned_runs
from doremi.planning import model_size

if TYPE_CHECKING:
    from doremi.experiment import Experiment

TRAINING_FLOPS, FORWARD_FLOPS = 6, 2  # per parameter and token (Kaplan et al. 2020)


def training_flops(marker: Mapping[str, Any]) -> float:
    """FLOPs of one finished run."""
    return float(TRAINING_FLOPS * marker["num_parameters"] * marker["num_tokens"])


def search_costs(experiment: Experiment, search: Mapping[str, Any]) -> dict[str, Any]:
    """What finding the weights took, beside the runs that are compared: without a reference that is the baseline's run.

    Args:
        experiment: with finished searches.
        search: ``provenance`` of ``weights.json``.

    Returns:
        By stage (``reference``, ``proxy``): ``train_seconds``, ``num_tokens`` and ``flops`` of all its runs, and
        ``num_parameters`` of one.
    """
    shared = planned_runs.trains_alike(experiment.recipe, "reference", "main")
    return _costs(experiment, _references(experiment, search)[1 if shared else 0 :], search)


def search_flops(experiment: Experiment, search: Mapping[str, Any]) -> dict[str, float]:
    """FLOPs of finding the weights by stage, every reference included: without it there are none.

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
    scoring = _num_scoring_parameters(experiment)
    costs = {"reference": _cost(references), "proxy": _cost(proxies, forward_parameters=scoring)}
    return {name: cost for name, cost in costs.items() if cost is not None}


def _num_scoring_parameters(experiment: Experiment) -> int:
    """Of the model whose forward pass every step of the proxy needs: the reference, trained here or before."""
    recipe = experiment.recipe
    if recipe.reweighting.objective == "hardest":  # the proxy's own loss
        return 0
    return model_size.measure(recipe, "reference", vocab_size=experiment.store.vocab_size).num_parameters


def _cost(folders: Sequence[Path], *, forward_parameters: int = 0) -> dict[str, Any] | None:
    markers = [marker for folder in folders if (marker := files.read_marker(folder)) is not None]
    if not markers:
        return None
    num_tokens = sum(marker["num_tokens"] for marker in markers)
    return {
        "train_seconds": round(sum(marker["train_seconds"] for marker in markers), 3),
        "num_parameters": markers[0]["num_parameters"],
        "num_tokens": num_tokens,
        "flops": sum(map(training_flops, markers)) + FORWARD_FLOPS * forward_parameters * num_tokens,
    }
