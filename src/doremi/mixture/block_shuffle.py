"""An order of rows for storage where reading a row here and a row there is slow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from doremi.errors import InputError
from doremi.mixture.permutation import permute, stream


@dataclass(frozen=True)
class BlockShuffle:
    """Blocks of neighbouring rows in random order, and rows in random order within a window of a few blocks.

    Reads then stay within ``blocks_per_window`` blocks of the file for ``rows_per_block · blocks_per_window`` draws of
    the domain. Rows that are neighbours in the corpus come closer together than with `Shuffle`. The rows that do not
    fill a block keep their place at the end of the block order, so they come in the last window of every epoch.

    Args:
        rows_per_block: neighbouring rows that are read together; 1,024 tokens of 2 bytes make 2 KiB a row.
        blocks_per_window: blocks whose rows are mixed.

    Raises:
        InputError: a size below 1.
    """

    rows_per_block: int = 256
    blocks_per_window: int = 64

    def __post_init__(self) -> None:
        if self.rows_per_block < 1 or self.blocks_per_window < 1:
            raise InputError(f"{self}: both sizes must be at least 1")

    @property
    def tag(self) -> str:
        """Names the order and its sizes in saved states."""
        return f"block-shuffle-{self.rows_per_block}x{self.blocks_per_window}"

    def __call__(self, positions: np.ndarray, *, num_rows: np.ndarray, key: np.ndarray) -> np.ndarray:
        """The rows at ``positions``, uint64[n]; arguments as in `doremi.mixture.permutation.permute`."""
        mixed = self._mix_windows(positions, num_rows, key)
        slots = mixed // self.rows_per_block
        num_blocks = num_rows // self.rows_per_block  # full ones
        is_full = slots < num_blocks
        blocks = slots.copy()
        blocks[is_full] = permute(slots[is_full], num_rows=num_blocks[is_full], key=key[is_full])
        return blocks * self.rows_per_block + mixed % self.rows_per_block

    def _mix_windows(self, positions: np.ndarray, num_rows: np.ndarray, key: np.ndarray) -> np.ndarray:
        """Permute positions within their window; the last window may be shorter."""
        window_size = self.rows_per_block * self.blocks_per_window
        windows = positions // window_size
        starts = windows * window_size
        sizes = np.minimum(num_rows - starts, window_size)
        return starts + permute(positions - starts, num_rows=sizes, key=stream(key, windows + 1))
