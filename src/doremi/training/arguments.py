"""The recipe's training section as `transformers.TrainingArguments`."""

from __future__ import annotations

import logging
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments

from doremi import files, launch, redaction
from doremi.errors import InputError, shown
from doremi.training import distributed, passed_through
from doremi.training.schedules import LearningRateSchedule

if TYPE_CHECKING:
    from doremi.training.config import TrainingConfig

logger = logging.getLogger(__name__)

MAX_MICRO_BATCH_SIZE = 64


class PublicTrainingArguments(TrainingArguments):
    """Training arguments whose secrets are known to this process alone: trackers and logs get masks for them."""

    def to_dict(self) -> dict[str, Any]:
        """As transformers makes it, which masks ``..._token`` alone."""
        content: dict[str, Any] = redaction.public(super().to_dict())
        return content


def training_arguments(config: TrainingConfig, *, folder: Path, seed: int, name: str) -> TrainingArguments:
    """Arguments for one run.

    Raises:
        InputError: a passed-through argument does not exist, has a name of its own or no effect, the global batch
            cannot be split evenly over the processes and micro-batches, or the processes are not as they should be:
            one sees several GPUs, fewer have met than were started, FSDP is to shard over a single one.
    """
    check(config)
    check_devices(config)
    arguments = PublicTrainingArguments(**settings(config, folder=folder, seed=seed, name=name))
    distributed.check_all_are_here()
    return arguments


def settings(config: TrainingConfig, *, folder: Path, seed: int, name: str) -> dict[str, Any]:
    """What `training_arguments` gives to `transformers.TrainingArguments`, by name."""
    micro_batch_size, accumulation_steps = split_batch(config, world_size=launch.world_size())
    defaults: dict[str, Any] = {
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
        "logging_nan_inf_filter": False,  # it would replace a NaN by the last average; ours stops the run
        "average_tokens_across_devices": False,  # token counts are the objective's
        "remove_unused_columns": False,
    }
    owned = {
        "output_dir": str(folder),
        "run_name": name,  # the recipe's own is the name of all its models, see `trackers.recording`
        "max_steps": config.steps,
        "per_device_train_batch_size": micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        "learning_rate": config.learning_rate,
        "warmup_steps": math.ceil(config.warmup_fraction * config.steps),
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "adam_beta1": config.adam_beta1,
        "adam_beta2": config.adam_beta2,
        "adam_epsilon": config.adam_epsilon,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "save_total_limit": config.save_total_limit,
        "logging_strategy": "steps",
        "logging_steps": config.logging_steps,
        "seed": seed,
        "data_seed": seed,
    }
    return defaults | compilable(config.arguments) | owned


def precision(config: TrainingConfig) -> str:
    """What the forward pass computes in: ``bf16`` or ``fp16`` by autocast, or ``float32``."""
    return next((name for name in ("bf16", "fp16") if config.arguments.get(name)), "float32")


def check(config: TrainingConfig) -> tuple[int, int]:
    """(micro-batch size, accumulation steps), after checking all that `training_arguments` may refuse."""
    passed_through.check(config.arguments)
    learning_rate_schedule(config)
    _check_fsdp(config.arguments)
    return split_batch(config, world_size=launch.world_size())


def check_devices(config: TrainingConfig) -> None:
    """What training needs of the processes and their devices, and preparing or scoring does not.

    Raises:
        InputError: this process alone would use several GPUs, or FSDP has nothing to shard over.
    """
    if config.arguments.get("fsdp") and launch.world_size() == 1:
        raise InputError("training.arguments.fsdp: needs several processes to shard over; start with --nproc N")
    if launch.is_launched():
        return
    if torch.cuda.is_available() and torch.cuda.device_count() > 1 and not config.arguments.get("use_cpu"):
        number = torch.cuda.device_count()
        raise InputError(
            f"one process sees {number} GPUs, and would share its batches out over them by the slow nn.DataParallel; "
            f"start with --nproc {number}, or let it see a single one, as by CUDA_VISIBLE_DEVICES=0"
        )


def learning_rate_schedule(config: TrainingConfig) -> LearningRateSchedule:
    """The recipe's decay; without an end value it ends at 5 % of the peak."""
    end = 0.05 * config.learning_rate if config.learning_rate_end is None else config.learning_rate_end
    return LearningRateSchedule(
        decay=config.schedule, end_factor=end / config.learning_rate, decay_fraction=config.decay_fraction
    )


def split_batch(config: TrainingConfig, *, world_size: int) -> tuple[int, int]:
    """(micro-batch size, accumulation steps) of a process.

    Raises:
        InputError: world size × micro-batch does not divide the global batch.
    """
    rows, remainder = divmod(config.global_batch_size, world_size)
    if remainder:
        below = rows * world_size
        raise InputError(
            f"training.global_batch_size is {config.global_batch_size}, not a multiple of the {world_size} processes; "
            f"use {f'{below} or ' if below else ''}{below + world_size}"
        )
    micro = config.micro_batch_size or max(n for n in range(1, min(rows, MAX_MICRO_BATCH_SIZE) + 1) if rows % n == 0)
    if rows % micro:
        step = world_size * micro
        below = config.global_batch_size // step * step
        raise InputError(
            f"training.global_batch_size is {config.global_batch_size}, not a multiple of {world_size} processes × "
            f"micro-batch {micro}; use {f'{below} or ' if below else ''}{below + step}"
        )
    return micro, rows // micro


def compilable(arguments: dict[str, Any], *, warn: bool = True) -> dict[str, Any]:
    """Without ``torch_compile`` where there is no compiler, with a notice: it would fail at the first step."""
    if not arguments.get("torch_compile") or _find_compiler():
        return arguments
    if warn:
        logger.warning("torch_compile needs a C++ compiler (g++ or clang++, or CXX naming one); going on without it")
    return {key: value for key, value in arguments.items() if not key.startswith("torch_compile")}


def _find_compiler() -> str | None:
    candidates = (os.environ.get("CXX"), "g++", "clang++", "c++")
    return next((found for name in candidates if name and (found := shutil.which(name))), None)


def _check_fsdp(arguments: dict[str, Any]) -> None:
    """Sharded checkpoints have an index that torch unpickles without restrictions; and the first FSDP is going away."""
    fsdp_config = arguments.get("fsdp_config") or {}
    if isinstance(fsdp_config, str):
        fsdp_config = files.read_json(Path(fsdp_config))
    if not isinstance(fsdp_config, dict):
        raise InputError(
            f"training.arguments.fsdp_config is {shown(fsdp_config)}; expected a mapping, or a JSON file of one"
        )
    chosen = {key.removeprefix("fsdp_"): value for key, value in fsdp_config.items()}
    if chosen.get("state_dict_type", "FULL_STATE_DICT") != "FULL_STATE_DICT":
        raise InputError(
            f"training.arguments.fsdp_config.state_dict_type is {chosen['state_dict_type']}, which has a pickle for an "
            "index; leave it out: FULL_STATE_DICT gathers model and optimizer in the first process' memory to save"
        )
    if chosen.get("version", 2) not in (2, "2"):
        raise InputError(
            f"training.arguments.fsdp_config.version is {shown(chosen['version'])}: only FSDP2 is supported; leave it "
            "out"
        )
    if arguments.get("fsdp") and arguments.get("optim") == "adafactor":
        raise InputError(
            "training.arguments: Adafactor of transformers fails on parameters that FSDP2 has sharded; use "
            "optim: adamw_torch_fused, whose state is sharded as well"
        )
