"""A recipe whose stages can be counted on paper, and sizes that are round numbers."""

from __future__ import annotations

from doremi.planning.model_size import ModelSize
from doremi.planning.stages import Inputs, stages
from doremi.recipe import parse

LENGTH, BATCH, STEPS = 10, 8, 100
ROWS = BATCH * STEPS


def size(num_parameters):
    """Forward: 2 · parameters · L + 4 · 1 · 3 · L² FLOPs a row."""
    return ModelSize(num_parameters, num_parameters, 1, 3, 3, 12, 2, 50)


SIZES = {"reference": size(1000), "proxy": size(2000), "main": size(10_000)}


def forward(run):
    return 2 * SIZES[run].num_parameters * LENGTH + 4 * 3 * LENGTH**2


def make(**sections):
    content = {
        "corpus": {"inputs": [{"path": "x"}]},
        "models": {"reference": "tiny", "proxy": "tiny", "main": {"preset": "tiny", "overrides": {"hidden_size": 128}}},
        "training": {"steps": STEPS, "sequence_length": LENGTH, "global_batch_size": BATCH},
        "weights": {"baselines": []},
    }
    for section, changes in sections.items():
        content[section] = content.get(section, {}) | changes
    return parse(content)


def planned(recipe, *, store=None, answer=None, num_devices=1):
    """Stages by name."""
    return {stage.name: stage for stage in stages(Inputs(recipe, SIZES, num_devices, store, answer))}
