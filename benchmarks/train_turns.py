"""Runs that take turns in one process, a few steps each, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Protocol

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Run(Protocol):
    """Something that can train for some steps, and later for some more."""

    def take(self, num_steps: int) -> float:
        """Seconds that the next ``num_steps`` took."""

    def stop(self) -> None:
        """No more steps will be asked for."""


class Clock:
    """Seconds on a CPU are those that this process had it, on a GPU those that passed until it was idle."""

    def __init__(self, device_type: str, synchronize: Callable[[], None]) -> None:
        self.kind = "CPU seconds of the process" if device_type == "cpu" else "wall-clock seconds"
        self._read = time.process_time if device_type == "cpu" else time.perf_counter
        self._synchronize = synchronize

    def __call__(self) -> float:
        """The time now, with nothing under way."""
        self._synchronize()
        return self._read()


class TrainerRun(TrainerCallback):
    """`Trainer.train` in a thread of its own, held at the end of a step until it is told to go on.

    A step is all that happens from one end of a step to the next: log, batches, measuring, forward, backward, update.
    Only one thread is ever awake.
    """

    def __init__(self, trainer: Trainer, clock: Clock) -> None:
        self._trainer, self._clock = trainer, clock
        self._began, self._num_left = 0.0, 0
        self._orders: SimpleQueue[int] = SimpleQueue()
        self._answers: SimpleQueue[float | None] = SimpleQueue()
        self._training: Future[Any] | None = None
        trainer.add_callback(self)

    def take(self, num_steps: int) -> float:
        """Seconds that the next ``num_steps`` took; the first ones include what a run begins with."""
        self._orders.put(num_steps)
        self._training = self._training or self._start()
        seconds = self._answers.get()
        if seconds is None:
            self._training.result()
            raise RuntimeError("the run has ended")
        return seconds

    def stop(self) -> None:
        """End the run where it stands. To be called in any case: Python waits for the thread before it exits."""
        self._orders.put(0)

    def _start(self) -> Future[Any]:
        executor = ThreadPoolExecutor(1)
        training = executor.submit(self._train)
        training.add_done_callback(lambda _: self._answers.put(None))
        executor.shutdown(wait=False)
        return training

    def _train(self) -> None:
        self._wait()
        self._trainer.train()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count the step; after the last one of this turn, answer and wait."""
        self._num_left -= 1
        if self._num_left == 0:
            self._answers.put(self._clock() - self._began)
            control.should_training_stop = not self._wait()

    def _wait(self) -> bool:
        self._num_left = self._orders.get()
        self._began = self._clock()
        return self._num_left > 0


class LoopRun:
    """A function that takes one step."""

    def __init__(self, step: Callable[[], None], clock: Clock) -> None:
        self._step, self._clock = step, clock

    def take(self, num_steps: int) -> float:
        """Seconds that the next ``num_steps`` took."""
        began = self._clock()
        for _ in range(num_steps):
            self._step()
        return self._clock() - began

    def stop(self) -> None:
        """There is nothing to end."""


def interleave(
    runs: Mapping[str, Run], pairs: Sequence[tuple[str, str]], *, rounds: int, steps_per_turn: int
) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Seconds per step of the two runs of every pair in each round, one right after the other, by turns the first."""
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {pair: [] for pair in pairs}
    for index in range(rounds):
        for pair in pairs:
            order = pair if index % 2 == 0 else pair[::-1]
            taken = {name: runs[name].take(steps_per_turn) / steps_per_turn for name in order}
            seconds[pair].append((taken[pair[0]], taken[pair[1]]))
    return seconds
