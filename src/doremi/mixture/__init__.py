"""Tokens and sampling weights to batches.

`MixtureSchedule` decides which rows a batch consists of and needs NumPy alone; `MixtureLoader` turns them into tensors.
"""

from typing import TYPE_CHECKING, Any

from doremi.mixture.block_shuffle import BlockShuffle
from doremi.mixture.permutation import Shuffle
from doremi.mixture.repetition import RepetitionLimit
from doremi.mixture.schedule import Batch, MixtureSchedule
from doremi.mixture.settings import MixtureSettings

if TYPE_CHECKING:
    from doremi.mixture.loader import MixtureLoader

__all__ = [
    "Batch",
    "BlockShuffle",
    "MixtureLoader",
    "MixtureSchedule",
    "MixtureSettings",
    "RepetitionLimit",
    "Shuffle",
]


def __getattr__(name: str) -> Any:
    if name == "MixtureLoader":  # the only part that imports torch
        from doremi.mixture.loader import MixtureLoader

        return MixtureLoader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
