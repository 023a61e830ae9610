"""Python's garbage between many short runs: what lives on is not looked through again after each of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def swept() -> Iterator[Callable[[], object]]:
    """Yield what to call before each run: it frees what the one before left, and takes the rest out of later searches.

    Every training ends with a search for garbage, over a million objects of imported modules: half of the CPU time
    that a run takes beside its steps. Afterwards everything is searched as before.
    """

    def sweep() -> None:
        gc.collect()  # first: what is garbage already, such as a model, must not live on
        gc.freeze()

    try:
        yield sweep
    finally:
        gc.unfreeze()
