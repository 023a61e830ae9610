"""What finished runs logged while they trained, as series for charts and for the steps to match."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from doremi.evidence.curves import HeldOutCurve
from doremi.evidence.searches import Trajectory
from doremi.experiment import finished, held_out_curve
from doremi.experiment.runs import TrainingRun

MAX_TRAJECTORY_POINTS = 500


def learning_curve(run: TrainingRun) -> HeldOutCurve:
    """The held-out losses of a finished run, by domain."""
    curve = held_out_curve.curve_from_log(finished.load_history(run.folder, run.names), run.names)
    return HeldOutCurve(curve["steps"], curve["nats"])


def trajectory(history: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Trajectory:
    """α_t, ᾱ_t and λ_t of the logged steps, thinned to `MAX_TRAJECTORY_POINTS`; the last step is kept."""
    by_step = {entry["step"]: entry for entry in history if f"dro_weights/{names[0]}" in entry}
    steps = sorted(by_step)
    stride = math.ceil(len(steps) / MAX_TRAJECTORY_POINTS) or 1
    steps = steps[::-1][::stride][::-1]
    columns = ("dro_weights", "average_weights", "excess_losses")
    series = {
        column: {name: [by_step[step][f"{column}/{name}"] for step in steps] for name in names} for column in columns
    }
    return Trajectory(steps=steps, **series)
