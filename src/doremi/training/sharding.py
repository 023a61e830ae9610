"""FSDP2 as accelerate applies it to the trained model; and on CPU too, and for a model that is only evaluated."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, fsdp2_prepare_model
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import TrainingArguments

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def prepare(args: TrainingArguments) -> None:
    """Before the `Accelerator` of a trainer is made: what accelerate 1.15 would do otherwise with FSDP.

    1. In a group of CPU processes it ignores FSDP and replicates the model. What it looks at is made to say that the
       processes have devices; it replaces that by FSDP at once.
    2. In mixed precision it adds up gradients in the precision of the forward pass. Here that is done in float32.
    """
    if not args.fsdp:
        return
    if args.distributed_state.distributed_type == DistributedType.MULTI_CPU:
        args.distributed_state.distributed_type = DistributedType.MULTI_GPU
    dtype = next((dtype for name, dtype in PRECISIONS.items() if getattr(args, name)), None)
    if dtype is not None:
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        args.fsdp_plugin_args.setdefault("mixed_precision_policy", policy)


def place_for_evaluation(model: torch.nn.Module, accelerator: Accelerator) -> None:
    """Shard a frozen model, if FSDP is on; else move it to the device.

    Each layer is gathered for its forward pass and dropped right after it, the embeddings and the head as well, which
    accelerate keeps whole between the steps of a model that is trained.
    """
    if accelerator.is_fsdp2:
        fsdp2_prepare_model(accelerator, model).set_reshard_after_forward(True)
    else:
        model.to(accelerator.device)
