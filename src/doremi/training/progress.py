"""How far a training run is, in tokens: a bar on a terminal, a plain line at every ``logging_steps`` elsewhere."""

from __future__ import annotations

import time
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from doremi.launch import progress


def make(*, tokens_per_step: int, description: str) -> TrainerCallback:
    """What shows the progress of a run where standard error goes; the first of several processes alone does."""
    kind = TokenProgress if progress.is_watched() else StepLines
    return kind(tokens_per_step=tokens_per_step, description=description)


class StepLines(TrainerCallback):
    """A line at each log entry: step, loss, tokens per second and the time left, both over this stretch of the run."""

    def __init__(self, *, tokens_per_step: int, description: str = "train") -> None:
        self._tokens_per_step = tokens_per_step
        self._description = description
        self._started, self._first_step = 0.0, 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to count, at the step the run continues from."""
        self._started, self._first_step = time.monotonic(), state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the line, if the entry has a training loss."""
        num_steps = state.global_step - self._first_step
        if not (state.is_world_process_zero and logs and "loss" in logs and num_steps > 0):
            return
        per_second = num_steps / max(time.monotonic() - self._started, 1e-9)
        left = (state.max_steps - state.global_step) / per_second
        progress.line(
            f"{self._description}: step {state.global_step:,} of {state.max_steps:,}, loss {logs['loss']:.3f}, "
            f"{per_second * self._tokens_per_step:,.0f} tokens/s, {progress.duration(left)} left"
        )


class TokenProgress(TrainerCallback):
    """A bar with tokens/s and the time left."""

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
                mininterval=0.5,
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
