"""Memory of a training step on one device, roughly."""

from __future__ import annotations

from typing import Any, NamedTuple

from doremi.models.linear_nats import CHUNK_BYTES, KEPT_BYTES
from doremi.models.size import ModelSize
from doremi.models.widths import Widths
from doremi.training.config import TrainingConfig

# Of optimizer state for a parameter, by what is in the optimizer's name; Adam's two moments otherwise.
_OPTIMIZER_BYTES = {"adafactor": 0, "8bit": 2, "4bit": 1, "sgd": 0, "lion": 4}
_ADAM_BYTES = 8
# Measured on the CPU from what autograd saves (PyTorch's fused attention, no dropout), bytes a token and layer: for
# each unit of width, and for each unit of each of the MLP's intermediate results. Korthikanti et al. 2022, Section 4.1,
# count 2 bytes for everything; here norms and the residual stream are float32 under autocast.
_WIDTH_BYTES, _MLP_BYTES = {"float32": 44, "half": 26}, {"float32": 4, "half": 2}


class Memory(NamedTuple):
    """Bytes on one device."""

    parameters: float  # float32 master copies; the proxy's reference, and half-precision copies where there are any
    gradients: float
    optimizer: float
    activations: float | None  # None: not known
    logits: float

    @property
    def known(self) -> float:
        """What is known of it: at least that much is needed."""
        return float(sum(part for part in self if part is not None))

    @property
    def total(self) -> float | None:
        """All of it, if all is known."""
        return None if self.activations is None else self.known


def optimizer_bytes(config: TrainingConfig) -> int:
    """Bytes of optimizer state for each parameter."""
    name = str(config.arguments.get("optim", "adamw"))
    return next((size for part, size in _OPTIMIZER_BYTES.items() if part in name), _ADAM_BYTES)


def estimate(
    size: ModelSize, config: TrainingConfig, *, micro_batch_size: int, num_devices: int, frozen_bytes: float = 0
) -> Memory:
    """Memory of one device while a model of that size is trained.

    With N parameters, B rows of L tokens in a micro-batch, n layers of width d and MLP size f with r results (2; 4 in a
    gated MLP)::

        parameters   4 N, 2 N more in half precision, and ``frozen_bytes``: the proxy's reference
        gradients    4 N, and as much again in the buckets of DDP
        optimizer    8 N for Adam
        activations  B L n (a d + r m f): a = 44, m = 4 in float32; a = 26, m = 2 in half precision
        logits       two chunks and what is kept for the backward pass, never B L × vocabulary

    Activations are not known (None) of a model that is no plain transformer. FSDP divides N by the number of devices;
    activation checkpointing leaves 4 d of each layer and one whole layer. Fragmentation and communication buffers come
    on top: leave a tenth free.
    """
    precision = "half" if config.arguments.get("bf16") or config.arguments.get("fp16") else "float32"
    shards = num_devices if config.arguments.get("fsdp") else 1
    buckets = 2 if num_devices > 1 and shards == 1 else 1
    copies = 4 + (2 if precision == "half" else 0)
    tokens = micro_batch_size * config.sequence_length
    return Memory(
        parameters=copies * size.num_parameters / shards + frozen_bytes,
        gradients=4 * buckets * size.num_parameters / shards,
        optimizer=optimizer_bytes(config) * size.num_parameters / shards,
        activations=None
        if size.widths is None
        else tokens * _saved_bytes(size.widths, precision, is_checkpointed=_is_checkpointed(config.arguments)),
        logits=min(3 * 4.0 * tokens * size.vocab_size, 2 * CHUNK_BYTES["cuda"] + KEPT_BYTES),
    )


def _saved_bytes(size: Widths, precision: str, *, is_checkpointed: bool) -> int:
    """Bytes that a token leaves behind for the backward pass, in all layers."""
    results = 2 if size.num_mlp_matrices == 2 else 4
    layer = _WIDTH_BYTES[precision] * size.hidden_size + _MLP_BYTES[precision] * results * size.mlp_size
    return layer + 4 * size.hidden_size * size.num_layers if is_checkpointed else layer * size.num_layers


def _is_checkpointed(arguments: dict[str, Any]) -> bool:
    fsdp_config = arguments.get("fsdp_config")
    inner = fsdp_config if isinstance(fsdp_config, dict) else {}
    return bool(arguments.get("gradient_checkpointing") or inner.get("activation_checkpointing"))
