"""A dry run: a few real steps of each of the recipe's models on this machine, timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_utils import SaveStrategy

from doremi.config import RunName
from doremi.corpus import TokenStore
from doremi.experiment.flops import expected_passes
from doremi.experiment.flops import flops as count
from doremi.experiment.recipe import Recipe
from doremi.methods.protocol import Run, Scoring
from doremi.mixture.gather import RowStore
from doremi.models import attention, loading
from doremi.models.config import ModelConfig
from doremi.models.size import ModelSize
from doremi.planning.pace import MeasuredPace
from doremi.planning.stages import Kind, Stage
from doremi.training import arguments
from doremi.training.config import TrainingConfig
from doremi.training.signals import ExcessLoss, Objective, TokenMean
from doremi.training.trainer import DoReMiTrainer

WARM_UP_STEPS, TIMED_STEPS = 1, 3
NUM_SYNTHETIC_ROWS = 4096  # of each domain


class SyntheticTokens:
    """Random tokens in place of a corpus that is not prepared yet; as long to compute with as real ones."""

    digest = tokenizer_digest = "synthetic"
    eos_token_id = 0

    def __init__(self, names: Sequence[str], *, vocab_size: int) -> None:
        self.names = tuple(names)
        self.vocab_size = vocab_size

    def num_tokens(self, name: str) -> int:
        """The same for every domain."""
        return NUM_SYNTHETIC_ROWS

    def num_sequences(self, name: str, sequence_length: int) -> int:
        """The same for every domain."""
        return NUM_SYNTHETIC_ROWS

    def rows(self, name: str, indices: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
        """``tokens[n, L]`` that the row numbers decide, and int64[n] L."""
        tokens = np.random.default_rng(indices).integers(self.vocab_size, size=(len(indices), sequence_length))
        return tokens, np.full(len(indices), sequence_length)


def measure(
    recipe: Recipe,
    stages: Sequence[Stage],
    sizes: Mapping[RunName, ModelSize],
    *,
    store: TokenStore | None,
    num_devices: int,
) -> MeasuredPace:
    """Time a run of each kind that is planned; takes the memory of their models here, and a few of their steps.

    A step has the micro-batch of a run on ``num_devices``, twice where the run accumulates gradients. The median of
    three counts, after one to warm up. Parameters are fresh, except where the recipe goes on from a model; rows are the
    corpus' where it is prepared.
    """
    source = store or SyntheticTokens(
        [f"synthetic {i}" for i in range(2)], vocab_size=min(size.vocab_size for size in sizes.values())
    )
    seconds: dict[Kind, float] = {}
    flops: dict[Kind, float] = {}
    for stage in stages:
        if stage.kind in seconds:
            continue
        config = _few_steps(recipe.training.for_run(stage.model), num_devices=num_devices)
        _, num_micro_batches = arguments.split_batch(config, world_size=1)
        seconds[stage.kind] = _seconds_per_step(recipe, stage.run, config, source) / config.global_batch_size
        passes = expected_passes(stage.run.policy, num_rows=1, num_micro_batches=num_micro_batches)
        reference = sizes[stage.run.reference.size if stage.run.reference else "reference"]
        flops[stage.kind] = count(passes, sizes[stage.model], reference, sequence_length=config.sequence_length)
    last = next(stage.kind for stage in stages if stage.part == "verification")
    order = [*(kind for kind in seconds if kind != last), last]
    return MeasuredPace({kind: seconds[kind] for kind in order}, flops, num_devices, _device_name())


def _few_steps(config: TrainingConfig, *, num_devices: int) -> TrainingConfig:
    micro_batch_size, num_micro_batches = arguments.split_batch(config, world_size=num_devices)
    changes = {
        "steps": WARM_UP_STEPS + TIMED_STEPS,
        "micro_batch_size": micro_batch_size,
        "global_batch_size": micro_batch_size * min(num_micro_batches, 2),
        "on_max_epochs": "warn",
        "arguments": {key: value for key, value in config.arguments.items() if not key.startswith("fsdp")},
    }
    return config.model_copy(update=changes)


def _seconds_per_step(recipe: Recipe, run: Run, config: TrainingConfig, source: RowStore) -> float:
    names: tuple[str, ...] = source.names  # type: ignore[attr-defined]
    with TemporaryDirectory() as folder:
        args = arguments.training_arguments(config, folder=Path(folder), seed=0, name=run.size)
        args.save_strategy, args.disable_tqdm, args.report_to = SaveStrategy.NO, True, []
        clock = _Clock()
        DoReMiTrainer(
            _build(recipe, run.size, source),
            objective=_objective(recipe, run, names, source),
            corpus=source,
            args=args,
            mixture=config.mixture(),
            allow_absent_domains=True,
            callbacks=[clock],
        ).train()
    return statistics.median(np.diff(clock.ends)[WARM_UP_STEPS - 1 :].tolist())


def _build(recipe: Recipe, run: RunName, source: Any) -> PreTrainedModel:
    config: ModelConfig = getattr(recipe.models, run)
    settings = recipe.training.for_run(run)
    hf_config = loading.configure(
        config,
        vocab_size=source.vocab_size,
        eos_token_id=source.eos_token_id,
        sequence_length=settings.sequence_length,
    )
    implementation = attention.resolve(
        config.attn_implementation, precision=arguments.precision(settings), hf_config=hf_config
    )
    if config.init == "trained":  # any parameters take as long
        config = config.model_copy(update={"init": "random"})
    return loading.build(config, hf_config, seed=0, attention=implementation)


def _objective(recipe: Recipe, run: Run, names: Sequence[str], source: Any) -> Objective:
    """That of the run; a policy begins with its defaults for the domains that are there: it takes as long."""
    if run.policy is None:
        return TokenMean(names)
    size = run.reference.size if run.reference else "reference"
    scoring = run.scoring or Scoring()
    reference = _build(recipe, size, source).to(getattr(torch, scoring.dtype))
    return ExcessLoss(
        reference,
        names=names,
        target=getattr(run.policy, "target", "excess"),
        weights_update="exact" if run.policy.when == "before" else "delayed",
    )


class _Clock(TrainerCallback):
    """When each step ended: the time between two ends holds all of a step, its data and its measuring passes too."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *arguments: Any, **settings: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def _device_name() -> str:
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"this CPU ({torch.get_num_threads()} threads)"
