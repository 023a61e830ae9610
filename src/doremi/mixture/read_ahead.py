"""Work done one step early in a background thread, and done again if it turns out to be the wrong work."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


class ReadAhead(Generic[Key, Result]):
    """``compute`` with the next call guessed and already under way.

    ``compute`` never runs twice at the same time. What it raises is raised by the call that needed the result.
    """

    def __init__(self, compute: Callable[[Key], Result]) -> None:
        self._compute = compute
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="doremi-read-ahead")
        self._guess: tuple[Key, Future[Result]] | None = None

    def __call__(self, key: Key) -> Result:
        """The result for ``key``."""
        guess, self._guess = self._guess, None
        if guess is not None and guess[0] == key:
            return guess[1].result()
        if guess is not None:
            wait([guess[1]])
        return self._compute(key)

    def expect(self, key: Key) -> None:
        """Start on what the next call is likely to ask for."""
        self._guess = (key, self._executor.submit(self._compute, key))
