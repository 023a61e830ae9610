"""Token losses from hidden states, a chunk of tokens at a time: tokens × vocabulary is never held as a whole.

Forward: nats_j = −log softmax(logits_j)[t_j], per token, nothing summed. Backward, when the weight w_j of each token is
known: ∂(Σ_j w_j nats_j)/∂logits_j = w_j (softmax(logits_j) − onehot(t_j)), with the logits computed once more. That
costs a fourth product with the output matrix where training has three; logits that are few enough are kept instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from doremi.models import fused_nats
from doremi.models.output_head import OutputHead

# Logits of one chunk. On a CPU 256 to 512 rows were fastest for vocabularies of 2k and of 50k: below, the output matrix
# is read too often, above, the chunk leaves the cache. A GPU wants a few thousand rows for each product.
CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}
CHUNK_ROWS = {"cpu": 512, "cuda": 4096}
# Log-probabilities up to this size are kept for the backward pass, which then takes 0.75 to 0.9 of the time.
KEPT_BYTES = 512 << 20


def linear_nats(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    *,
    head: OutputHead,
) -> torch.Tensor:
    """Negative log-likelihood of each target under ``head``'s logits.

    Products are computed in the dtype that a linear layer would use, autocast included; all else, and the sums over
    chunks in the gradient of ``weight``, in float32, or in float64 where the products are.

    Args:
        hidden: ``hidden[..., D]``.
        weight: ``weight[V, D]``, may be shared with the embedding or frozen.
        bias: ``bias[V]`` or None.
        targets: ``targets[...]``, each in [0, V).
        head: what follows the linear layer.

    Returns:
        nats[...] in float32 or float64.
    """
    dtype = _compute_dtype(hidden)
    fused = fused_nats.select(hidden.device, dtype)
    if fused is not None:
        return fused(hidden.to(dtype), weight.to(dtype), bias, targets, head)
    # asked here: within the function gradients are always off, and ``needs_input_grad`` does not know of no_grad
    may_keep = torch.is_grad_enabled()
    return _LinearNats.apply(hidden, weight, bias, targets, head, dtype, may_keep)


def _compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden.dtype


class _Chunks:
    """The logits of a few tokens at a time, always in the same memory: fresh pages for each take a CPU time."""

    def __init__(self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, head: OutputHead) -> None:
        self.hidden, self.weight, self.bias, self.head = hidden, weight, bias, head
        self.dtype = torch.promote_types(hidden.dtype, torch.float32)
        self.num_tokens, self.vocab_size = len(hidden), len(weight)
        device = "cpu" if hidden.device.type == "cpu" else "cuda"
        fitting = max(min(CHUNK_BYTES[device] // (self.vocab_size * self.dtype.itemsize), CHUNK_ROWS[device]), 1)
        num_chunks = max(math.ceil(self.num_tokens / fitting), 1)
        self._rows = max(math.ceil(self.num_tokens / num_chunks), 1)  # of one size: no last product of a few rows
        self._logits, self._scratch = (self.empty(self._rows, self.vocab_size) for _ in range(2))

    def __iter__(self) -> Iterator[slice]:
        for start in range(0, self.num_tokens, self._rows):
            yield slice(start, min(start + self._rows, self.num_tokens))

    @property
    def num_bytes(self) -> int:
        """Of all the logits together."""
        return self.num_tokens * self.vocab_size * self.dtype.itemsize

    def empty(self, *shape: int) -> torch.Tensor:
        return self.hidden.new_empty(shape, dtype=self.dtype)

    def scratch(self, rows: slice) -> torch.Tensor:
        return self._scratch[: rows.stop - rows.start]

    def logits(self, rows: slice) -> torch.Tensor:
        logits = self._logits[: rows.stop - rows.start]
        if self.dtype == self.hidden.dtype:
            torch.mm(self.hidden[rows], self.weight.t(), out=logits)
        else:
            logits.copy_(self.hidden[rows] @ self.weight.t())
        return self.head.apply_(logits if self.bias is None else logits.add_(self.bias))

    def softcap_slope(self, rows: slice) -> torch.Tensor:
        """1 − tanh², from the logits that were computed last, in their place."""
        assert self.head.softcap is not None
        return self._logits[: rows.stop - rows.start].div_(self.head.softcap).square_().neg_().add_(1)


class _LinearNats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        head: OutputHead,
        dtype: torch.dtype,
        may_keep: bool,
    ) -> torch.Tensor:
        chunks = _Chunks(hidden.reshape(-1, hidden.shape[-1]).to(dtype), weight.to(dtype), bias, head)
        nats = chunks.empty(*targets.shape)
        flat_nats, flat_targets = nats.view(-1), targets.reshape(-1)
        # The slope of a soft cap needs the logits themselves, which their log-probabilities do not tell.
        keep = may_keep and any(ctx.needs_input_grad) and head.softcap is None and chunks.num_bytes <= KEPT_BYTES
        kept = chunks.empty(chunks.num_tokens, chunks.vocab_size) if keep else None
        for rows in chunks:
            log_probabilities = kept[rows] if kept is not None else chunks.scratch(rows)
            torch.log_softmax(chunks.logits(rows), dim=1, out=log_probabilities)
            flat_nats[rows] = -log_probabilities.gather(1, flat_targets[rows, None]).squeeze(1)
        ctx.save_for_backward(chunks.hidden, weight, bias, flat_targets, kept)
        ctx.hidden_shape, ctx.hidden_dtype, ctx.head = hidden.shape, hidden.dtype, head
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, token_weights: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, kept = ctx.saved_tensors
        chunks = _Chunks(hidden, weight.to(hidden.dtype), bias, ctx.head)
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if for_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=chunks.dtype) if for_weight else None
        grad_bias = torch.zeros_like(bias, dtype=chunks.dtype) if for_bias else None
        for rows in chunks:
            grad_raw = _grad_raw(chunks, rows, targets[rows], token_weights.reshape(-1)[rows], kept)
            if grad_bias is not None:
                grad_bias += grad_raw.sum(dim=0)
            grad_raw = grad_raw.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad_raw, chunks.weight, out=grad_hidden[rows])
            if grad_weight is not None:
                _add_product_(grad_weight, grad_raw.t(), hidden[rows])
        return (
            grad_hidden.view(ctx.hidden_shape).to(ctx.hidden_dtype) if grad_hidden is not None else None,
            grad_weight.to(weight.dtype) if grad_weight is not None else None,
            grad_bias.to(bias.dtype) if grad_bias is not None else None,
            None,
            None,
            None,
            None,
        )


def _grad_raw(
    chunks: _Chunks, rows: slice, targets: torch.Tensor, token_weights: torch.Tensor, kept: torch.Tensor | None
) -> torch.Tensor:
    """Gradient w (softmax − onehot) [n, V], by the chain rule back to the output of the linear layer."""
    gradient, head = chunks.scratch(rows), chunks.head
    if kept is not None:
        torch.exp(kept[rows], out=gradient)
    else:
        torch.softmax(chunks.logits(rows), dim=1, out=gradient)
    weights = head.scale * token_weights[:, None]
    gradient.mul_(weights).scatter_add_(1, targets[:, None], -weights)
    return gradient.mul_(chunks.softcap_slope(rows)) if head.softcap is not None else gradient


def _add_product_(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
