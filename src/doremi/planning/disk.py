"""Disk space of a run directory when everything in it is finished."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from doremi.planning.memory import optimizer_bytes
from doremi.planning.stages import Inputs, Stage, cached_rows
from doremi.training.config import TrainingConfig
from doremi.training.sparse_rows import row_size


class Disk(NamedTuple):
    """Bytes."""

    corpus: int | None  # None: not prepared yet
    models: float  # finished, in float32
    checkpoints: float  # that stay beside them
    reference_losses: float

    @property
    def total(self) -> float:
        """Of what is known."""
        return (self.corpus or 0) + self.models + self.checkpoints + self.reference_losses


def estimate(inputs: Inputs, stages: Sequence[Stage], corpus: Path) -> Disk:
    """Space for the token store, models of 4 bytes a parameter, checkpoints of as much and the optimizer's state.

    While a checkpoint is written there is one more of it than `training.save_total_limit`.
    """
    recipe = inputs.recipe
    models = checkpoints = 0.0
    for stage in stages:
        config = recipe.training.for_run(stage.model)
        models += 4.0 * stage.num_models * stage.size.num_parameters
        checkpoints += stage.num_models * _num_checkpoints(config) * checkpoint_bytes(stage, config)
    return Disk(
        corpus=_folder_bytes(corpus) if inputs.store is not None else None,
        models=models,
        checkpoints=checkpoints,
        reference_losses=_reference_losses(inputs, stages) if recipe.reweighting.reference_cache else 0.0,
    )


def checkpoint_bytes(stage: Stage, config: TrainingConfig) -> float:
    """Of one checkpoint: parameters in float32 and the optimizer's state."""
    return float((4 + optimizer_bytes(config)) * stage.size.num_parameters)


def _num_checkpoints(config: TrainingConfig) -> int:
    return min(math.ceil(config.steps / config.save_steps), config.save_total_limit)


def _reference_losses(inputs: Inputs, stages: Sequence[Stage]) -> float:
    recipe = inputs.recipe
    proxy = next(stage for stage in stages if stage.model == "proxy")
    num_values = recipe.training.for_run("proxy").sequence_length - 1
    rows = cached_rows(inputs, num_rows=proxy.num_rows, rows=proxy.rows)
    return inputs.num_rounds * rows * row_size(num_values, recipe.reweighting.reference_cache_dtype)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
