"""A recipe whose stages can be counted on paper, and sizes that are round numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from doremi.experiment import bench, unprepared
from doremi.experiment.recipe import parse
from doremi.methods.protocol import Outcome
from doremi.models.size import ModelSize
from doremi.models.widths import Widths
from doremi.planning import stages
from doremi.planning.inputs import Inputs

LENGTH, BATCH, STEPS = 10, 8, 100
ROWS = BATCH * STEPS


def size(num_parameters):
    """Forward: 2 · parameters · L + 4 · 1 · 3 · L² FLOPs a row."""
    return ModelSize(num_parameters, 50, Widths(1, 3, 3, 12, 2), lambda length: float(_row(num_parameters, length)))


def unknown(num_parameters):
    """A model that cannot be traced, and is no plain transformer."""
    return ModelSize(num_parameters, 50, None, lambda length: math.nan)


def _row(num_parameters, length):
    return 2 * num_parameters * length + 4 * 3 * length**2


SIZES = {"reference": size(1000), "proxy": size(2000), "main": size(10_000)}


def forward(run):
    return _row(SIZES[run].num_parameters, LENGTH)


def make(**sections):
    content = {
        "corpus": {"inputs": [{"path": "x"}]},
        "models": {"reference": "tiny", "proxy": "tiny", "main": {"preset": "tiny", "overrides": {"hidden_size": 128}}},
        "training": {"steps": STEPS, "sequence_length": LENGTH, "global_batch_size": BATCH},
        "methods": ["natural", {"doremi": sections.pop("doremi", {})}, *sections.pop("further", [])],
    }
    for section, changes in sections.items():
        old = content.get(section)
        content[section] = old | changes if isinstance(old, dict) else changes
    return parse(content)


def inputs(recipe, *, store=None, answer=None, num_devices=1, sizes=SIZES):
    made = unprepared.make(recipe) if store is None else bench.make(recipe, store, bench.set_sizes(store))

    def known(run):
        """Where there is an answer, every run is finished, and every proxy ended with it."""
        if answer is None:
            return None
        state = run.policy and replace(
            run.policy.init(made), num_updates=1, weights_sum=np.array([answer[name] for name in made.names])
        )
        return Outcome(run, state=state)

    return Inputs(recipe, sizes, num_devices, made, store, known)


def planned(recipe, **settings):
    """Stages by name."""
    return {stage.name: stage for stage in stages.plan(inputs(recipe, **settings)).stages}
