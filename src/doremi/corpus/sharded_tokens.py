"""The tokens of one domain as one virtual array over the memory maps of its shards."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from doremi.corpus import indexed
from doremi.corpus.manifest import ShardEntry


class ShardedTokens:
    """tokens[num_tokens], the concatenation of all shards. Maps a shard when it is first read, and copies nothing."""

    def __init__(self, folder: Path, shards: Sequence[ShardEntry], *, dtype: str) -> None:
        self._folder, self._shards, self._dtype = folder, shards, dtype
        self._bounds = [0, *accumulate(shard.tokens for shard in shards)]  # shard s is [bounds[s], bounds[s + 1])
        self._maps: dict[int, np.ndarray] = {}
        self._views: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        return self._bounds[-1]

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """tokens[n, length] from each of ``starts`` (int[n], within the array); what lies beyond the end is 0."""
        if not len(starts):
            return np.zeros((0, length), indexed.little_endian(self._dtype))
        shard = self._shard_of(int(starts.min()))
        first_token, end = self._bounds[shard : shard + 2]
        if int(starts.max()) + length <= end:  # one shard holds them all: one gather, straight from its map
            return self._windows_of(shard, length)[starts - first_token if first_token else starts]
        return self._windows_of_many(starts, length)

    def _windows_of_many(self, starts: np.ndarray, length: int) -> np.ndarray:
        out = np.zeros((len(starts), length), indexed.little_endian(self._dtype))
        bounds = np.array(self._bounds)
        shard_of = np.searchsorted(bounds, starts, side="right") - 1
        whole = starts + length <= bounds[shard_of + 1]
        for shard in np.unique(shard_of[whole]).tolist():
            chosen = np.flatnonzero(whole & (shard_of == shard))
            out[chosen] = self._windows_of(shard, length)[starts[chosen] - bounds[shard]]
        for row in np.flatnonzero(~whole):
            piece = self.slice(int(starts[row]), min(int(starts[row]) + length, len(self)))
            out[row, : len(piece)] = piece
        return out

    def slice(self, start: int, stop: int) -> np.ndarray:
        """tokens[start:stop]; a view of the map where it lies in one shard."""
        first = self._shard_of(start)
        last = bisect_left(self._bounds, stop) - 1
        pieces = [
            self._map(shard)[max(start - self._bounds[shard], 0) : stop - self._bounds[shard]]
            for shard in range(first, last + 1)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, self._dtype), *pieces])

    def document_lengths(self) -> np.ndarray:
        """int64[documents], each with its EOS. Reads the index of every shard."""
        lengths = [
            indexed.read_lengths(self._folder / f"{shard.file}.idx", dtype=self._dtype) for shard in self._shards
        ]
        return np.concatenate([np.empty(0, np.int64), *lengths])

    def _shard_of(self, token: int) -> int:
        return bisect_right(self._bounds, token) - 1

    def _windows_of(self, shard: int, length: int) -> np.ndarray:
        """View[tokens - length + 1, length] of a shard; row w begins at token w, so that a gather copies it once."""
        key = (shard, length)
        if key not in self._views:  # making the view takes as long as reading ten rows through it
            self._views[key] = np.lib.stride_tricks.sliding_window_view(self._map(shard), length)
        return self._views[key]

    def _map(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            path = self._folder / f"{self._shards[shard].file}.bin"
            # A plain array over the map: np.memmap's subclass costs microseconds on every slice.
            self._maps[shard] = np.asarray(np.memmap(path, indexed.little_endian(self._dtype), mode="r"))
        return self._maps[shard]
