"""How few-shot tasks are asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FewShot:
    """What every compared model must share; batch size and device change nothing.

    Args:
        num_fewshot: solved examples before each question, drawn for it from the task's training split. A task that
            fixes it at 0 keeps that.
        limit: documents asked, spread over the whole task; None: all of them.
        seed: of the examples. They are the same for every model.
    """

    num_fewshot: int = 1
    limit: int | None = None
    seed: int = 0
