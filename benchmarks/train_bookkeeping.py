"""What Group DRO costs beside the reference model: the part ``bookkeeping``.

The trainer takes its steps with both models replaced by losses that are already there. What a proxy step then takes
beyond a plain one is the bookkeeping: excess, sums by domain, the adversary, weights, what is logged. A difference of
milliseconds could not be seen in whole steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch

from benchmarks.train_setup import SEED, Setting, SyntheticStore, build_model, make_trainer
from benchmarks.train_turns import Clock, LoopRun, interleave
from doremi.models.token_loss import TokenLosses
from doremi.training import DoReMiTrainer, ExcessLoss, TokenMean, signals, trainer

STEPS_PER_LOG = 20  # the recipe's default


def measure(setting: Setting) -> dict[str, Any]:
    """Seconds per step of proxy and plain runs without models, in pairs, for each number of domains."""
    return {str(k): _measure(setting, num_domains=k) for k in setting.sizes.bookkeeping_domains}


def _measure(setting: Setting, *, num_domains: int) -> dict[str, Any]:
    sizes = replace(
        setting.sizes,
        num_domains=num_domains,
        rows=max(num_domains, setting.sizes.rows),  # no domain is absent from a batch
        sequence_length=setting.sizes.bookkeeping_row_length,
        layers=1,
        width=64,
        hidden=64,
        compile_backend=None,
    )
    store = SyntheticStore(
        num_domains=num_domains, num_rows=2, sequence_length=sizes.sequence_length, vocabulary=sizes.vocabulary
    )
    setting = setting._replace(sizes=sizes)
    clock = Clock(setting.device.type, setting.synchronize)
    with _fixed_losses(setting):
        objectives = {
            "dro": ExcessLoss(build_model(sizes, seed=SEED), names=store.names),
            "plain": TokenMean(store.names),
        }
        runs = {
            name: LoopRun(_step(make_trainer(setting, each, store), setting), clock)
            for name, each in objectives.items()
        }
        for run in runs.values():
            run.take(2)
        seconds = interleave(runs, [("dro", "plain")], rounds=sizes.rounds, steps_per_turn=STEPS_PER_LOG)
    return {"tokens_per_step": sizes.tokens_per_step, "seconds": seconds["dro", "plain"]}


@contextmanager
def _fixed_losses(setting: Setting) -> Iterator[None]:
    """Let losses be constants, for the model in training and for the reference, without computing any."""
    sizes, device = setting.sizes, setting.device
    generator = torch.Generator().manual_seed(SEED)
    shape = (sizes.rows, sizes.sequence_length - 1)
    training_nats, reference_nats = (torch.rand(shape, generator=generator).to(device) for _ in range(2))

    def token_nats(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return training_nats if model.training else reference_nats

    def token_losses(model: torch.nn.Module, batch: Any) -> TokenLosses:
        return TokenLosses(token_nats(model, batch), None)

    with (
        mock.patch.object(trainer, "token_losses", token_losses),
        mock.patch.object(trainer, "token_nats", token_nats),
        mock.patch.object(signals, "token_nats", token_nats),
    ):
        yield


def _step(run: DoReMiTrainer, setting: Setting) -> Callable[[], None]:
    """One step of the trainer up to the loss; every so often with a line for the log."""
    batches, num_taken = iter(run.get_train_dataloader()), 0

    def step() -> None:
        nonlocal num_taken
        num_taken += 1
        (batch,), _ = run.get_batch_samples(batches, 1, setting.device)
        loss = run.compute_loss(run.model, batch)
        if num_taken % STEPS_PER_LOG == 0:
            run.log({"loss": loss.item()})

    return step
