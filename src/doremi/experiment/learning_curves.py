"""What finished runs logged while they trained, as series for charts and for the steps to match."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from doremi.evidence import comparison
from doremi.experiment import finished, held_out_curve
from doremi.experiment.runs import TrainingRun

MAX_TRAJECTORY_POINTS = 500

Curve = dict[str, Any]  # {"steps": [...], "nats": {name: [...]}} and a list for each summary


def learning_curve(run: TrainingRun, reference: Mapping[str, float]) -> Curve:
    """The held-out losses of a finished run, by domain and in the three summaries."""
    curve = held_out_curve.curve_from_log(finished.load_history(run.folder, run.names), run.names)
    points = [{name: curve["nats"][name][i] for name in run.names} for i in range(len(curve["steps"]))]
    summaries = [comparison.summarise(point, reference) for point in points]
    return curve | {
        "uniform_mean_nats": [summary.uniform_mean for summary in summaries],
        "reference_mean_nats": [summary.reference_mean for summary in summaries],
        "worst_nats": [summary.worst for summary in summaries],
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
