"""Checkpoints by time instead of by steps: a run of a few minutes is sooner trained again than saved all along."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

SECONDS = 300.0  # between checkpoints


class TimedSaving(TrainerCallback):
    """Saves whenever ``seconds`` have passed since the run began, went on or was saved last.

    For a single process: several have several clocks, and would have to agree. What the interruption saves it saves.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, *rest: Any, **kwargs: Any) -> None:
        """Take the place of ``save_steps``."""
        args.save_strategy = SaveStrategy.NO
        self._last = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save when it is time; not after the last step, which nothing continues from."""
        if state.global_step < state.max_steps and time.monotonic() - self._last >= self._seconds:
            control.should_save = True

    def on_save(self, *rest: Any, **kwargs: Any) -> None:
        """Count from here."""
        self._last = time.monotonic()
