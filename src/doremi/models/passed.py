"""What models of one kind have shown, so that the next of hundreds of them need not show it again."""

from __future__ import annotations

from collections.abc import Callable

MAX_KINDS = 256


class PassedProbes:
    """The kinds of models that passed a check, by everything that its answer depends on; one that fails is no kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, None] = {}  # oldest first

    def once(self, check: Callable[[], None], *, kind: str) -> None:
        """Call ``check``, unless it was passed for this kind; raises what it does."""
        if kind in self._kinds:
            return
        check()
        self._kinds[kind] = None
        if len(self._kinds) > MAX_KINDS:
            del self._kinds[next(iter(self._kinds))]
