"""Held-out losses during training, in the trainer's own log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from doremi.evaluation.perplexity import HeldOutSet, mean_nats, nats_sums, share
from doremi.training import distributed

PREFIX = "held_out_nats/"


class HeldOutCurve(TrainerCallback):
    """Scores the model every ``every`` steps and at the last one; logs ``held_out_nats/<domain or set>``.

    It runs before the checkpoint of the same step is saved, so that a resumed run has the whole curve. Each of several
    processes scores its share of the windows, and k sums are added up.
    """

    def __init__(self, held_out: HeldOutSet, *, every: int, batch_size: int) -> None:
        self._held_out = held_out
        self._every = every
        self._batch_size = batch_size
        self.trainer: Trainer | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Evaluate when it is time."""
        if state.global_step % self._every and state.global_step != state.max_steps:
            return
        assert self.trainer is not None, "set .trainer before training"
        own = share(self._held_out, rank=args.process_index, world_size=args.world_size)
        sums = torch.from_numpy(nats_sums(self.trainer.model, own, batch_size=self._batch_size)).to(args.device)
        nats = mean_nats(distributed.all_reduce_sum(sums).cpu().numpy(), self._held_out)
        training_log_is_due = control.should_log or state.global_step == state.max_steps
        self.trainer.log({f"{PREFIX}{name}": v for name, v in zip(self._held_out.names, nats.tolist(), strict=True)})
        control.should_log = training_log_is_due  # logging clears it, and the step's own entry would be lost


def curve_from_log(log_history: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """``{"steps": [...], "nats": {name: [...]}}`` from a trainer's log; a step logged twice counts once.

    Evaluation sets come after the domains ``names``: whatever else was scored at every one of the steps.
    """
    by_step = {entry["step"]: entry for entry in log_history if f"{PREFIX}{names[0]}" in entry}
    steps = sorted(by_step)
    scored = [key.removeprefix(PREFIX) for key in (by_step[steps[0]] if steps else ()) if key.startswith(PREFIX)]
    others = [name for name in scored if name not in names and all(f"{PREFIX}{name}" in by_step[s] for s in steps)]
    nats = {name: [by_step[s][f"{PREFIX}{name}"] for s in steps] for name in [*names, *others]}
    return {"steps": steps, "nats": nats}
