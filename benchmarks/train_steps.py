"""Seconds per step of plain, proxy and bare runs over the same model and batch: the part ``steps``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from transformers import GPTNeoXForCausalLM

from benchmarks.train_setup import SEED, Setting, SyntheticStore, build_model, compile_layers, make_trainer
from benchmarks.train_turns import Clock, LoopRun, TrainerRun, interleave
from doremi.training import ExcessLoss, TokenMean
from doremi.training.objective import Objective
from doremi.training.reference_cache import ReferenceCache
from doremi.training.token_loss import token_nats

WARMUP_TURNS = 2  # the first step begins the run, compiles and makes the optimizer's state
PAIRS = {  # figure: which run over which
    "proxy_over_plain": ("proxy", "plain"),
    "proxy_over_plain_cached": ("proxy_cached", "plain"),
    "proxy_over_plain_delayed": ("proxy_delayed", "plain_accumulated"),
    "proxy_over_plain_accumulated": ("proxy_accumulated", "plain_accumulated"),
    "trainer_over_bare": ("plain", "bare"),
    "trainer_over_bare_full_logits": ("plain", "bare_full_logits"),
}
Loss = Callable[[GPTNeoXForCausalLM, dict[str, torch.Tensor]], torch.Tensor]


def measure(setting: Setting) -> dict[str, Any]:
    """Seconds per step of both runs of every pair, in each round."""
    clock = Clock(setting.device.type, setting.synchronize)
    runs = {**trainer_runs(setting, clock), **bare_runs(setting, clock)}
    pairs = list(PAIRS.values())
    with ExitStack() as at_the_end:
        for run in runs.values():
            at_the_end.callback(run.stop)
        for run in runs.values():
            run.take(WARMUP_TURNS * setting.sizes.steps_per_turn)
        seconds = interleave(runs, pairs, rounds=setting.sizes.rounds, steps_per_turn=setting.sizes.steps_per_turn)
    return {"clock": clock.kind, "seconds": {name: seconds[pair] for name, pair in PAIRS.items()}}


def trainer_runs(setting: Setting, clock: Clock) -> dict[str, TrainerRun]:
    """Our own loop with each objective, in one micro-batch and in several."""
    sizes = setting.sizes
    store = SyntheticStore(
        num_domains=sizes.num_domains,
        num_rows=sizes.rows,
        sequence_length=sizes.sequence_length,
        vocabulary=sizes.vocabulary,
    )
    reference = compile_layers(build_model(sizes, seed=SEED + 1), backend=sizes.compile_backend)

    def run(objective: Objective, **options: Any) -> TrainerRun:
        return TrainerRun(make_trainer(setting, objective, store, **options), clock)

    def excess_loss(cache: ReferenceCache | None = None) -> ExcessLoss:
        return ExcessLoss(reference, names=store.names, cache=cache)

    several = sizes.num_micro_batches
    return {
        "plain": run(TokenMean(store.names)),
        "proxy": run(excess_loss()),
        "proxy_cached": run(excess_loss(warm_cache(setting, store))),
        "plain_accumulated": run(TokenMean(store.names), num_micro_batches=several),
        "proxy_accumulated": run(excess_loss(), num_micro_batches=several),
        "proxy_delayed": run(excess_loss(), num_micro_batches=several, weights_update="delayed"),
    }


def warm_cache(setting: Setting, store: SyntheticStore) -> ReferenceCache:
    """A cache that has every row. What is in it does not matter to the time: the loss of a uniform guess is."""
    length = setting.sizes.sequence_length
    row_counts = {name: store.num_sequences(name, length) for name in store.names}
    cache = ReferenceCache.open(
        setting.folder / "reference-nats", row_counts=row_counts, sequence_length=length, key={"corpus": store.digest}
    )
    for index, count in enumerate(row_counts.values()):
        nats = np.full((count, length - 1), np.log(setting.sizes.vocabulary), np.float32)
        cache.write(np.full(count, index), np.arange(count), nats)
    return cache


def bare_runs(setting: Setting, clock: Clock) -> dict[str, LoopRun]:
    """What anybody would write in ten lines of PyTorch, with the loss of this package and with that of transformers."""

    def mean_nats(model: GPTNeoXForCausalLM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return token_nats(model, batch).mean()

    def full_logits(model: GPTNeoXForCausalLM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(**batch, use_cache=False).loss

    return {
        "bare": LoopRun(bare_step(setting, mean_nats), clock),
        "bare_full_logits": LoopRun(bare_step(setting, full_logits), clock),
    }


def bare_step(setting: Setting, loss: Loss) -> Callable[[], None]:
    """Forward, loss, backward, clip, AdamW and zero_grad, on batches that are already there."""
    sizes = setting.sizes
    model = compile_layers(build_model(sizes, seed=SEED).to(setting.device), backend=sizes.compile_backend).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(SEED)

    def step() -> None:
        shape = (sizes.rows, sizes.sequence_length)
        tokens = torch.randint(sizes.vocabulary, shape, generator=generator).to(setting.device)
        with setting.autocast():
            value = loss(model, {"input_ids": tokens, "labels": tokens})
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step
