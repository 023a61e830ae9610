"""Plain, proxy and bare steps over the same model and batch: the parts ``whole_batch`` and ``micro_batches``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import GPTNeoXForCausalLM

from benchmarks.train_setup import SEED, Setting, SyntheticStore, build_model, make_trainer
from benchmarks.train_turns import Clock, LoopRun, Run, TrainerRun, interleave
from doremi.models.compilation import compile_layers
from doremi.models.token_loss import token_nats
from doremi.training import ExcessLoss, TokenMean
from doremi.training.reference_cache import ReferenceCache
from doremi.training.signals import Objective

WARMUP_TURNS = 2  # the first step begins the run, compiles and makes the optimizer's state
WHOLE_BATCH = {  # figure: which run over which
    "proxy_over_plain": ("proxy", "plain"),
    "proxy_over_plain_cached": ("proxy_cached", "plain"),
    "trainer_over_bare": ("plain", "bare"),
    "trainer_over_bare_full_logits": ("plain", "bare_full_logits"),
}
MICRO_BATCHES = {
    "proxy_over_plain_delayed": ("proxy_delayed", "plain"),
    "proxy_over_plain_accumulated": ("proxy", "plain"),
}
Loss = Callable[[GPTNeoXForCausalLM, dict[str, torch.Tensor]], torch.Tensor]


def whole_batch(setting: Setting) -> dict[str, Any]:
    """Seconds per step of both runs of every pair, in each round, where the batch is one micro-batch."""
    clock = Clock(setting.device.type, setting.synchronize)
    store, excess_loss = store_and_excess_loss(setting)
    objectives = {
        "plain": TokenMean(store.names),
        "proxy": excess_loss(),
        "proxy_cached": excess_loss(cache=warm_cache(setting, store)),
    }
    runs = {name: TrainerRun(make_trainer(setting, each, store), clock) for name, each in objectives.items()}
    return _measure(setting, clock, {**runs, **bare_runs(setting, clock)}, WHOLE_BATCH)


def micro_batches(setting: Setting) -> dict[str, Any]:
    """The same where the batch is split. A part of its own: a second shape would be compiled for any shape."""
    clock = Clock(setting.device.type, setting.synchronize)
    store, excess_loss = store_and_excess_loss(setting)

    def run(objective: Objective) -> TrainerRun:
        several = setting.sizes.num_micro_batches
        return TrainerRun(make_trainer(setting, objective, store, num_micro_batches=several), clock)

    runs = {
        "plain": run(TokenMean(store.names)),
        "proxy": run(excess_loss()),
        "proxy_delayed": run(excess_loss(weights_update="delayed")),
    }
    return _measure(setting, clock, runs, MICRO_BATCHES)


def _measure(
    setting: Setting, clock: Clock, runs: Mapping[str, Run], figures: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    sizes = setting.sizes
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # it would go on without compiling
    with ExitStack() as at_the_end:
        for run in runs.values():
            at_the_end.callback(run.stop)
        for run in runs.values():
            run.take(WARMUP_TURNS * sizes.steps_per_turn)
        pairs = list(figures.values())
        seconds = interleave(runs, pairs, rounds=sizes.rounds, steps_per_turn=sizes.steps_per_turn)
    return {"clock": clock.kind, "seconds": {name: seconds[pair] for name, pair in figures.items()}}


def store_and_excess_loss(setting: Setting) -> tuple[SyntheticStore, Callable[..., ExcessLoss]]:
    """A corpus, and what makes the proxy's objective on it; all of them share one reference."""
    sizes = setting.sizes
    store = SyntheticStore(
        num_domains=sizes.num_domains,
        num_rows=sizes.rows,
        sequence_length=sizes.sequence_length,
        vocabulary=sizes.vocabulary,
    )
    return store, partial(ExcessLoss, build_model(sizes, seed=SEED + 1), names=store.names)


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
    model = build_model(sizes, seed=SEED).to(setting.device).train()
    if sizes.compile_backend is not None:
        compile_layers(model, backend=sizes.compile_backend)
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
