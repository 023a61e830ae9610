"""Per-token losses of any Hugging Face causal LM. Label shift and ignore index are handled here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

IGNORE_INDEX = -100
MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")

Batch = Mapping[str, torch.Tensor]


def target_mask(batch: Batch) -> torch.Tensor:
    """bool[B, T-1]: whether position t's next token is a target. A row of T tokens has at most T-1 targets."""
    return batch["labels"][:, 1:] != IGNORE_INDEX


def token_nats(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Negative log-likelihood of each target token, natural log.

    Args:
        model: a causal LM, also wrapped by DDP or FSDP; called through its ordinary forward, without labels.
        batch: ``input_ids[B, T]`` and ``labels[B, T]`` (not shifted; -100 is no target), optionally
            ``attention_mask`` and ``position_ids``.

    Returns:
        nats[B, T-1] in float32 (float64 for a float64 model), 0 where the label is masked.
    """
    inputs = {key: batch[key] for key in MODEL_INPUTS if key in batch}
    return target_nats(model, inputs, batch["labels"][:, 1:])


def target_nats(model: torch.nn.Module, inputs: Batch, targets: torch.Tensor) -> torch.Tensor:
    """nats[B, S]: the loss of ``targets[B, S]``, already shifted: target s follows ``input_ids[:, : s + 1]``."""
    logits = model(**inputs, use_cache=False).logits[:, : targets.shape[1]]
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    nats = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return nats.view(targets.shape)
