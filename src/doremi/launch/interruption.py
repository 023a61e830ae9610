"""Ctrl-C and SIGTERM end a command in order, once; a second signal on the heels of the first changes nothing.

Two signals within a moment are one wish: a Ctrl-C that bounces, a scheduler that signals a job and its processes. The
second would break into the cleaning up after the first. One that comes later is meant: this process ends at once, and
what it had begun is done again by the next run.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # exit code
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_WISH_SECONDS = 2.0

_interrupted_at: float | None = None  # the first signal of a command


def install() -> None:
    """Handle the signals of this process from now on, but for those that it was started to ignore."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


@contextmanager
def handled() -> Iterator[None]:
    """Handle signals within the block, if this is the main thread: no other one may."""
    global _interrupted_at
    _interrupted_at = None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    install()
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def note() -> bool:
    """Remember that a signal came; returns whether it is the first."""
    global _interrupted_at
    is_first = _interrupted_at is None
    if is_first:
        _interrupted_at = time.monotonic()
    return is_first


def happened() -> bool:
    """Whether a signal came since the command began."""
    return _interrupted_at is not None


def _interrupt(number: int, frame: object) -> None:
    """The first signal is a `KeyboardInterrupt`; of the others see above."""
    if note():
        name = signal.Signals(number).name
        raise KeyboardInterrupt("interrupted" if number == signal.SIGINT else f"interrupted by {name}")
    assert _interrupted_at is not None
    if time.monotonic() - _interrupted_at > SAME_WISH_SECONDS:
        os._exit(INTERRUPTED)
