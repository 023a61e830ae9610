"""How far a long operation is: a bar on a terminal, plain lines in a log or a pipe, where a bar is one endless line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm as text_bar
from tqdm.auto import tqdm

from doremi.launch.processes import is_first

SECONDS_BETWEEN_LINES = 30.0


def is_watched() -> bool:
    """Whether a bar can be redrawn: standard error is a terminal, or this is a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    return str(text_bar.format_interval(seconds))


def line(text: str) -> None:
    """Write a line of progress where a bar would be."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def shown(description: str, *, total: int, unit: str, is_size: bool = False) -> Iterator[Callable[[int], object]]:
    """Show how much of ``total`` is done; yields what is to be called with the amount done since the call before.

    Of several processes the first one shows it.

    Args:
        description: of the operation, such as ``evaluate main``.
        total: amount of work.
        unit: of the amounts, such as ``windows``.
        is_size: write amounts as 1.5M instead of 1,500,000.
    """
    if not is_first():
        yield lambda amount: None
        return
    if is_watched():
        with tqdm(desc=description, total=total, unit=f" {unit}", unit_scale=is_size, dynamic_ncols=True) as bar:
            yield bar.update
        return
    lines = _Lines(description, total, unit, is_size=is_size)
    yield lines.update
    lines.end()


class _Lines:
    """A line every half minute, and one at the end."""

    def __init__(self, description: str, total: int, unit: str, *, is_size: bool) -> None:
        self._description, self._total, self._unit, self._is_size = description, total, unit, is_size
        self._started = self._last = time.monotonic()
        self._done = 0

    def update(self, amount: int = 1) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES and 0 < self._done < self._total:
            self._last = now
            left = (now - self._started) * (self._total - self._done) / self._done
            amounts = f"{self._amount(self._done)} of {self._amount(self._total)} {self._unit}"
            line(f"{self._description}: {amounts}, {duration(left)} left")

    def end(self) -> None:
        seconds = duration(time.monotonic() - self._started)
        line(f"{self._description}: {self._amount(self._done)} {self._unit} in {seconds}")

    def _amount(self, number: int) -> str:
        return str(text_bar.format_sizeof(number)) if self._is_size else f"{number:,}"
