"""What finished runs logged while they trained, as series for charts and for the steps to match."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from doremi.evidence.targets import OWN, Targets
from doremi.experiment import finished, held_out_curve
from doremi.experiment.runs import TrainingRun

MAX_TRAJECTORY_POINTS = 500

Curve = dict[str, Any]  # {"steps": [...], "nats": {name: [...]}} and a list for each target


def learning_curve(run: TrainingRun, targets: Targets) -> Curve:
    """The losses of a finished run while it trained: by domain and set, and in every target.

    The key of a target over domains ends in ``_nats``; {set: weight} is ``target``, in its own unit.
    """
    curve = held_out_curve.curve_from_log(finished.load_history(run.folder, run.names), run.names)
    points = [{name: nats[i] for name, nats in curve["nats"].items()} for i in range(len(curve["steps"]))]
    return curve | {
        key if key == OWN else f"{key}_nats": [target.value(point) for point in points]
        for key, target in targets.by_key().items()
    }


def mean_curve(by_seed: Mapping[int, Curve]) -> Curve:
    """The mean over seeds, and the summaries of each of several."""
    first, *others = by_seed.values()
    if not others:
        return first
    summaries = [key for key in first if key not in ("steps", "nats")]
    return {
        "steps": first["steps"],
        "nats": {name: _mean([curve["nats"][name] for curve in by_seed.values()]) for name in first["nats"]},
        **{key: _mean([curve[key] for curve in by_seed.values()]) for key in summaries},
        "by_seed": {str(seed): {key: curve[key] for key in summaries} for seed, curve in by_seed.items()},
    }


def _mean(series: Sequence[Sequence[float]]) -> list[float]:
    return np.mean(series, axis=0).tolist()


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
