"""Which `transformers.TrainingArguments` may be passed through: not what the recipe sets by another name, and not what
this trainer would accept and then ignore, or what would make its numbers mean something else.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from transformers import TrainingArguments

from doremi.errors import InputError

OWNED = {  # set by other names in the recipe
    "output_dir": "--out",
    "max_steps": "training.steps",
    "num_train_epochs": "training.steps",
    "per_device_train_batch_size": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.global_batch_size",
    "learning_rate": "training.learning_rate",
    "lr_scheduler_type": "training.schedule",
    "lr_scheduler_kwargs": "training.schedule and training.decay_fraction",
    "warmup_steps": "training.warmup_fraction",
    "warmup_ratio": "training.warmup_fraction",
    "weight_decay": "training.weight_decay",
    "max_grad_norm": "training.max_grad_norm",
    "adam_beta1": "training.adam_beta1",
    "adam_beta2": "training.adam_beta2",
    "adam_epsilon": "training.adam_epsilon",
    "eval_steps": "training.eval_steps",
    "save_steps": "training.save_steps",
    "save_strategy": "training.save_steps",
    "logging_steps": "training.logging_steps",
    "logging_strategy": "training.logging_steps",
    "save_total_limit": "training.save_total_limit",
    "seed": "seed",
    "data_seed": "seed",
}

LOSS = "the loss is that of each token, summed by domain; a proxy and a reference of another one cannot be compared"
LOADER = "batches come from the mixture loader, in one process; training.reading: ahead reads them in the background"
ORDER = "the order of rows is the mixture's (training.sampling and training.row_order)"
EVALUATION = "held-out text is scored by evaluation and training.eval_steps"
RESUMING = "a run that stopped is continued by running the recipe again, from whole checkpoints"
UPLOAD = "every model of a run would go to the same repository; upload a finished folder with `hf upload`"
UNUSED = {  # accepted by transformers, and ignored or in the way here; each only where it is not what holds anyway
    "label_smoothing_factor": LOSS,
    "label_names": LOSS,
    "average_tokens_across_devices": LOSS,
    "auto_find_batch_size": "the global batch is fixed; set training.micro_batch_size to what fits into memory",
    "parallelism_config": "rows are split over processes by DDP or FSDP only",
    "train_sampling_strategy": ORDER,
    "length_column_name": ORDER,
    "remove_unused_columns": LOADER,
    "dataloader_drop_last": LOADER,
    "dataloader_num_workers": LOADER,
    "dataloader_persistent_workers": LOADER,
    "dataloader_prefetch_factor": LOADER,
    "dataloader_multiprocessing_context": LOADER,
    "dataloader_in_order": LOADER,
    "eval_strategy": EVALUATION,
    "eval_delay": EVALUATION,
    "eval_on_start": EVALUATION,
    "eval_accumulation_steps": EVALUATION,
    "eval_do_concat_batches": EVALUATION,
    "eval_use_gather_object": EVALUATION,
    "per_device_eval_batch_size": EVALUATION,
    "prediction_loss_only": EVALUATION,
    "include_for_metrics": EVALUATION,
    "batch_eval_metrics": EVALUATION,
    "bf16_full_eval": EVALUATION,
    "fp16_full_eval": EVALUATION,
    "load_best_model_at_end": EVALUATION,
    "metric_for_best_model": EVALUATION,
    "greater_is_better": EVALUATION,
    "do_eval": EVALUATION,
    "do_predict": EVALUATION,
    "do_train": "whether a model is trained is for the verb to say (`doremi run`, `train`, `evaluate`)",
    "resume_from_checkpoint": RESUMING,
    "ignore_data_skip": RESUMING,
    "save_only_model": RESUMING,
    "enable_jit_checkpoint": RESUMING,
    "push_to_hub": UPLOAD,
    "hub_model_id": UPLOAD,
    "hub_strategy": UPLOAD,
    "hub_always_push": UPLOAD,
    "hub_private_repo": UPLOAD,
    "hub_revision": UPLOAD,
}
IN_PYTHON = ("label_smoothing_factor", "auto_find_batch_size", "train_sampling_strategy", "dataloader_num_workers")
SET_HERE = {"average_tokens_across_devices": False, "remove_unused_columns": False, "ignore_data_skip": True}


def check(arguments: Mapping[str, Any]) -> None:
    """Check the recipe's ``training.arguments``.

    Raises:
        InputError: one does not exist, has a name of its own in the recipe, or would be ignored.
    """
    known = inspect.signature(TrainingArguments).parameters
    for key, value in arguments.items():
        if key in OWNED:
            raise InputError(f"training.arguments.{key}: set {OWNED[key]} instead")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"training.arguments.{key}: transformers.TrainingArguments has no such argument{hint}")
        if key in UNUSED and value not in (_default(key), SET_HERE.get(key, _default(key))):
            raise InputError(f"training.arguments.{key}: {value!r} would have no effect or a wrong one: {UNUSED[key]}")


def check_built(args: TrainingArguments) -> None:
    """Check the arguments of a trainer that is made in Python.

    Raises:
        InputError: one would be ignored, or change what the losses mean.
    """
    for key in IN_PYTHON:
        value = getattr(args, key)
        if value != _default(key):
            raise InputError(f"TrainingArguments.{key} is {value!r}, which has no effect or a wrong one: {UNUSED[key]}")


def _default(key: str) -> Any:
    return inspect.signature(TrainingArguments).parameters[key].default
