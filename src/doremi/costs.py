"""What training took, in seconds, tokens and FLOPs, from the markers of finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doremi import files, planned_runs

if TYPE_CHECKING:
    from doremi.experiment import Experiment

TRAINING_FLOPS, FORWARD_FLOPS = 6, 2  # per parameter and token (Kaplan et al. 2020)


def training_flops(marker: Mapping[str, Any]) -> float:
    """FLOPs of one finished run."""
    return float(TRAINING_FLOPS * marker["num_parameters"] * marker["num_tokens"])


def search_costs(experiment: Experiment, search: Mapping[str, Any]) -> dict[str, Any]:
    """What finding the weights took, over all rounds and seeds; without a reference that is the baseline's run too.

    FLOPs of the proxy include the reference's forward passes, also those that the cache of its losses saved.
    """
    numbers = range(1, len(search["rounds"]["weights"]) + 1)
    proxies = [folder for number in numbers for folder in planned_runs.proxy_folders(experiment, number).values()]
    references = [experiment.directory.round(number, "reference") for number in numbers]
    size = next((marker["num_parameters"] for folder in references if (marker := files.read_marker(folder))), 0)
    if planned_runs.trains_alike(experiment.recipe, "reference", "main"):
        references = references[1:]
    costs = {"reference": _cost(references), "proxy": _cost(proxies, forward_parameters=size)}
    return {name: cost for name, cost in costs.items() if cost is not None}


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
