"""Widths of a plain transformer, from which the memory of its activations follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from doremi.models.configurations import text_part

TOLERANCE = 0.05


@dataclass(frozen=True)
class Widths:
    """A transformer all of whose layers have full attention and one MLP."""

    num_layers: int
    hidden_size: int  # of the residual stream
    attention_size: int  # heads × size of a head
    mlp_size: int
    num_mlp_matrices: int  # 2, or 3 in a gated MLP


def find(model: PreTrainedModel, *, sequence_length: int, forward_flops: float) -> Widths | None:
    """The widths that the configuration names, if they account for what is computed; else None.

    With n layers of width d, attention A and MLPs of r matrices d × f, the layers hold between r d f + 2 d A and
    r d f + 4 d A matrix elements each (A is shared by queries and output, keys and values may be fewer), and what the
    forward pass takes beyond 2 L FLOPs for each multiplied element is 4 n A L², both within 5 %. Mixtures of experts,
    latent or linear attention and recurrences do not pass.
    """
    config = text_part(model.config)
    sizes = None if getattr(config, "is_heterogeneous", False) else _named_sizes(config)  # else layers differ
    if sizes is None or any(".experts." in name for name, _ in model.named_parameters()):
        return None
    num_layers, hidden_size, attention_size, mlp_size = sizes
    head, body = _multiplied(model)
    seen = round(_elements_with_side(body, mlp_size) / (num_layers * hidden_size * mlp_size))
    is_gated = any("gate_proj" in name or "gate_up_proj" in name for name, _ in model.named_parameters())
    num_mlp = 3 if is_gated or seen == 3 else 2
    if seen < num_mlp:  # more may be seen: other matrices can have that side too
        return None
    rest = sum(matrix.numel() for matrix in body) / num_layers - num_mlp * hidden_size * mlp_size
    one = hidden_size * attention_size
    in_attention = forward_flops - 2 * sequence_length * (head + sum(matrix.numel() for matrix in body))
    expected = 4 * num_layers * attention_size * sequence_length**2
    if not 2 * one * (1 - TOLERANCE) <= rest <= 4 * one * (1 + TOLERANCE):
        return None
    if abs(in_attention - expected) > TOLERANCE * expected:
        return None
    return Widths(num_layers, hidden_size, attention_size, mlp_size, num_mlp)


def _named_sizes(config: PretrainedConfig) -> tuple[int, int, int, int] | None:
    named = [getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")]
    sizes = [size for size in named if isinstance(size, int) and size > 0]
    if len(sizes) < len(named):
        return None
    num_layers, num_heads, hidden_size = sizes
    head_size = getattr(config, "head_dim", None) or hidden_size // num_heads
    names = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    mlp_size = next((size for name in names if (size := getattr(config, name, None))), 4 * hidden_size)
    if not isinstance(head_size, int) or not isinstance(mlp_size, int):
        return None
    return num_layers, hidden_size, num_heads * head_size, mlp_size


def _multiplied(model: PreTrainedModel) -> tuple[int, list[torch.nn.Parameter]]:
    """Elements of the output layer, and the other matrices that every token meets: no embeddings."""
    head: Any = model.get_output_embeddings()
    head_weight = getattr(head, "weight", None)
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    skipped = {*embeddings, id(head_weight)}
    body = [parameter for parameter in model.parameters() if parameter.ndim > 1 and id(parameter) not in skipped]
    return 0 if head_weight is None else head_weight.numel(), body


def _elements_with_side(matrices: list[torch.nn.Parameter], mlp_size: int) -> int:
    """Elements of matrices with a side of the MLP's size, or twice that, where two are in one."""
    is_side: Callable[[int], bool] = {mlp_size, 2 * mlp_size}.__contains__
    return sum(matrix.numel() for matrix in matrices if any(map(is_side, matrix.shape)))
