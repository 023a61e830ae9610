"""Token losses against those from all the logits at once: the parts ``losses``, ``memory_ours`` and ``memory_full``."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from benchmarks.train_setup import SEED, Setting, build_model
from benchmarks.train_turns import Clock, LoopRun, interleave
from doremi.models.token_loss import token_nats

Batch = dict[str, torch.Tensor]
TokenNats = Callable[[torch.nn.Module, Batch], torch.Tensor]


def full_nats(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """nats[B, T-1] the ordinary way: float32 logits of all positions, then their cross-entropy."""
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1].float()
    targets = batch["labels"][:, 1:]
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


def measure(setting: Setting) -> dict[str, Any]:
    """Seconds of our path and of the ordinary one, forward and backward, in pairs; how far their nats are apart."""
    clock = Clock(setting.device.type, setting.synchronize)
    model, batch = _model_and_batch(setting)
    with torch.no_grad(), setting.autocast():
        difference = (token_nats(model, batch) - full_nats(model, batch)).abs().max().item()
    runs = {
        "ours": LoopRun(lambda: _forward_and_backward(setting, token_nats, model, batch), clock),
        "full": LoopRun(lambda: _forward_and_backward(setting, full_nats, model, batch), clock),
    }
    for run in runs.values():
        run.take(1)
    seconds = interleave(runs, [("ours", "full")], rounds=setting.sizes.loss_rounds, steps_per_turn=1)
    return {"seconds": seconds["ours", "full"], "max_difference_nats": difference}


def memory_ours(setting: Setting) -> dict[str, int]:
    """Peak of our path."""
    return {"bytes": _peak_bytes(setting, token_nats)}


def memory_full(setting: Setting) -> dict[str, int]:
    """Peak of the ordinary path. In another process: on a CPU, a peak is that of the process."""
    return {"bytes": _peak_bytes(setting, full_nats)}


def _model_and_batch(setting: Setting) -> tuple[torch.nn.Module, Batch]:
    """A body of one layer, so that what the head needs is nearly all there is."""
    sizes = setting.sizes
    model = build_model(
        sizes,
        seed=SEED,
        num_hidden_layers=1,
        hidden_size=sizes.loss_width,
        intermediate_size=sizes.loss_width,
        num_attention_heads=sizes.loss_width // 64,
        vocab_size=sizes.loss_vocabulary,
    ).to(setting.device)
    generator = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(sizes.loss_vocabulary, sizes.loss_shape, generator=generator).to(setting.device)
    return model.train(), {"input_ids": tokens, "labels": tokens}


def _forward_and_backward(setting: Setting, nats_of: TokenNats, model: torch.nn.Module, batch: Batch) -> None:
    with setting.autocast():
        nats = nats_of(model, batch)
    nats.mean().backward()
    model.zero_grad()


def _peak_bytes(setting: Setting, nats_of: TokenNats) -> int:
    """What a forward and backward pass needs at its peak, beyond the parameters."""
    model, batch = _model_and_batch(setting)
    _forward_and_backward(setting, nats_of, model, {key: value[:1, :16] for key, value in batch.items()})
    before = _reset_peak(setting)
    _forward_and_backward(setting, nats_of, model, batch)
    return _peak(setting) - before


def _reset_peak(setting: Setting) -> int:
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(setting.device)
        return torch.cuda.memory_allocated(setting.device)
    return _peak(setting)


def _peak(setting: Setting) -> int:
    if setting.device.type == "cuda":
        return torch.cuda.max_memory_allocated(setting.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
