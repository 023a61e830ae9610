"""A progress bar in tokens: how far, how fast, how long to go."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TokenProgress(TrainerCallback):
    """Shows tokens/s and the time left; on a pipe or in a job's log a line every half minute instead of a bar."""

    def __init__(self, *, tokens_per_step: int, description: str = "train") -> None:
        self._tokens_per_step = tokens_per_step
        self._description = description
        self._bar: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the step the run continues from."""
        if state.is_world_process_zero:
            self._bar = tqdm(
                desc=self._description,
                total=state.max_steps * self._tokens_per_step,
                initial=state.global_step * self._tokens_per_step,
                unit="tok",
                unit_scale=True,
                mininterval=0.5 if sys.stderr.isatty() else 30,
                dynamic_ncols=True,
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """One step further."""
        if self._bar is not None:
            self._bar.update(self._tokens_per_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """The latest loss beside the bar."""
        if self._bar is not None and logs and "loss" in logs:
            self._bar.set_postfix_str(f"step {state.global_step}, loss {logs['loss']:.3f}", refresh=False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
