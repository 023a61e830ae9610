"""`torch.compile`, one layer at a time."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.utils import DynamoBackend
from torch import nn
from transformers import TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer


def compile_layers(model: nn.Module, **options: Any) -> None:
    """Compile every decoder layer in place, with the options of `torch.compile`. It happens when they first run.

    A model compiled as a whole takes one graph of all its layers, and has transformers give SDPA an explicit causal
    mask (with any torch before 2.14), which FlashAttention's kernel does not take. Layers that are alike share a graph,
    and find their mask made outside of it, where it is seen that none is needed. What calls the model changes nothing:
    parameters keep their names. A model without layers of transformers is compiled as a whole.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for module in layers or [model]:
        module.compile(**options)


def options(args: TrainingArguments) -> dict[str, Any]:
    """What ``torch_compile_backend`` and ``torch_compile_mode`` ask of `torch.compile`."""
    return {"backend": args.torch_compile_backend, "mode": args.torch_compile_mode}


def keep_accelerate_from_compiling(accelerator: Accelerator) -> None:
    """It would compile the model as a whole."""
    accelerator.state.dynamo_plugin.backend = DynamoBackend.NO
