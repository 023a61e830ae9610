"""SIGTERM and Ctrl-C during training: the step is finished and saved, and all ranks stop after the same one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from doremi.launch import interruption
from doremi.training import distributed

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NOTICE = b"\ndoremi: finishing this step and saving it; Ctrl-C once more stops at once\n"


class Interruption(TrainerCallback):
    """Turns the first signal into a saved checkpoint, and the end of training into `KeyboardInterrupt`.

    No rank may stop because of its own signal: the others get theirs before or after a later step, and would wait for
    it for ever. So the flag travels with the sums that all ranks add up once per step anyway (`all_reduce_sum`), at the
    cost of 8 more bytes and no further collective, and every rank reads the same total.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None  # by this process
        self._is_agreed = False
        self._is_stopped = False  # at once
        self._stopped_after: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals within the block, if this is the main thread: no other one may.

        Raises:
            KeyboardInterrupt: on leaving the block, where a signal came; at once on a second Ctrl-C. A second SIGTERM
                changes nothing: under Slurm, both the job step and torchrun send one.
        """
        self._received, self._is_agreed, self._is_stopped, self._stopped_after = None, False, False, None
        with _handled_by(self._receive):
            yield
        if self._received is not None or self._is_agreed:
            raise KeyboardInterrupt(self._describe())

    def all_reduce_sum(self, sums: torch.Tensor) -> torch.Tensor:
        """The sum of ``sums`` (any shape) over all processes, carrying along whether one of them is to stop."""
        if distributed.world_size() == 1:
            return sums
        flag = sums.new_full((1,), float(self._received is not None))
        total = distributed.all_reduce_sum(torch.cat([sums.flatten(), flag]))
        self._is_agreed |= bool(total[-1] > 0)
        return total[:-1].view_as(sums)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log, save and stop, if that was agreed before this step's update; a single process agrees with itself."""
        if self._is_agreed or (self._received is not None and distributed.world_size() == 1):
            control.should_log = control.should_save = control.should_training_stop = True
            self._stopped_after = state.global_step

    def _receive(self, number: int, frame: object) -> None:
        interruption.note()
        if number == signal.SIGINT and self._received is not None and not self._is_stopped:
            self._is_stopped = True  # a third one would break into the cleaning up
            raise KeyboardInterrupt("interrupted twice, stopped at once")
        if self._received is None and distributed.rank() == 0:
            os.write(2, _NOTICE)  # not through logging: the handler may have interrupted a write to the same stream
        self._received = signal.Signals(number)

    def _describe(self) -> str:
        cause = "interrupted" if self._received is None else f"interrupted by {self._received.name}"
        return cause if self._stopped_after is None else f"{cause}, step {self._stopped_after} is saved"


@contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Install a handler, except for signals that are ignored (as of a job in the background), and put back the old."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        listened = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, handler) for number in listened}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
