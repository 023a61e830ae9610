"""Work done one step early in a background thread, and put right if it turns out to be the wrong work."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


class ReadAhead(Generic[Key, Result]):
    """``compute(key, None)`` with the next key guessed and already under way.

    Where the guess turns out to be wrong, what it gave is handed to ``compute`` as its second argument, for the parts
    of it that are right. ``compute`` never runs twice at the same time. What it raises is raised by the call that
    needed the result; the error of a wrong guess is of no interest.
    """

    def __init__(self, compute: Callable[[Key, Result | None], Result]) -> None:
        self._compute = compute
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="doremi-read-ahead")
        self._guess: tuple[Key, Future[Result]] | None = None

    def __call__(self, key: Key) -> Result:
        """The result for ``key``."""
        guess, self._guess = self._guess, None
        if guess is None:
            return self._compute(key, None)
        if guess[0] == key:
            return guess[1].result()
        failed = guess[1].exception() is not None  # waits for it
        return self._compute(key, None if failed else guess[1].result())

    def expect(self, key: Key) -> None:
        """Start on what the next call is likely to ask for."""
        self._guess = (key, self._executor.submit(self._compute, key, None))
