"""Disk space of a run directory when everything in it is finished."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from doremi.experiment.recipe import Recipe
from doremi.experiment.stored_losses import StoredLosses
from doremi.planning.memory import optimizer_bytes
from doremi.planning.stages import Stage
from doremi.training.config import TrainingConfig


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


def estimate(recipe: Recipe, stages: Sequence[Stage], losses: Sequence[StoredLosses], *, corpus: Path | None) -> Disk:
    """Space for the token store, models of 4 bytes a parameter, checkpoints of as much and the optimizer's state.

    While a checkpoint is written there is one more of it than `training.save_total_limit`. Runs whose model is not kept
    take next to nothing.

    Args:
        recipe: what is trained.
        stages: of its plan.
        losses: of references, that are stored.
        corpus: folder of the token store; None: not prepared.
    """
    models = checkpoints = 0.0
    for stage in stages:
        if not stage.run.keep:
            continue
        config = recipe.training.for_run(stage.model)
        models += 4.0 * stage.num_models * stage.size.num_parameters
        checkpoints += stage.num_models * _num_checkpoints(config) * checkpoint_bytes(stage, config)
    return Disk(
        corpus=None if corpus is None else _folder_bytes(corpus),
        models=models,
        checkpoints=checkpoints,
        reference_losses=float(sum(each.num_bytes for each in losses)),
    )


def checkpoint_bytes(stage: Stage, config: TrainingConfig) -> float:
    """Of one checkpoint: parameters in float32 and the optimizer's state."""
    return float((4 + optimizer_bytes(config)) * stage.size.num_parameters)


def _num_checkpoints(config: TrainingConfig) -> int:
    return min(math.ceil(config.steps / config.save_steps), config.save_total_limit)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
