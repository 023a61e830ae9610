"""The tokens of one domain as one virtual array over the memory maps of its shards."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from doremi.corpus.storing.indexed import little_endian

MAX_MAPS = 32_768  # of one store; Linux grants a process 65,530 maps of everything (vm.max_map_count)


class Shard(Protocol):
    """Consecutive tokens of a domain that lie in one piece."""

    @property
    def num_tokens(self) -> int:
        """How many."""
        ...

    def tokens(self) -> np.ndarray:
        """tokens[num_tokens], a view of a memory map."""
        ...

    def document_lengths(self) -> np.ndarray:
        """int[documents], each with its EOS."""
        ...


class MapLimit:
    """Lets go of all maps of a store when there are too many, at no cost to a read whose map is there.

    A map that is let go of stays valid for whoever reads from it at that moment.
    """

    def __init__(self, max_maps: int | None = None) -> None:
        self._max_maps, self._num_maps = max_maps or MAX_MAPS, 0
        self._caches: list[dict[Any, np.ndarray]] = []

    def watch(self, *caches: dict[Any, np.ndarray]) -> None:
        """Have ``caches`` emptied when the limit is reached."""
        self._caches.extend(caches)

    def count_one(self) -> None:
        """One more map is about to be kept."""
        if self._num_maps >= self._max_maps:
            for cache in self._caches:
                cache.clear()
            self._num_maps = 0
        self._num_maps += 1


class ShardedTokens:
    """tokens[num_tokens], the concatenation of all shards. Maps a shard when it is first read, and copies nothing."""

    def __init__(self, shards: Sequence[Shard], *, dtype: str, limit: MapLimit | None = None) -> None:
        self._shards, self._dtype = shards, little_endian(dtype)
        self._bounds = [0, *accumulate(shard.num_tokens for shard in shards)]  # shard s: [bounds[s], bounds[s + 1])
        self._bounds_array = np.array(self._bounds)  # a list answers for one token faster, an array for many
        self._maps: dict[int, np.ndarray] = {}
        self._views: dict[tuple[int, int], np.ndarray] = {}
        self._limit = limit or MapLimit()
        self._limit.watch(self._maps, self._views)

    def __len__(self) -> int:
        return self._bounds[-1]

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """tokens[n, length] from each of ``starts`` (int[n], within the array); what lies beyond the end is 0."""
        if not len(starts):
            return np.zeros((0, length), self._dtype)
        shard = self._shard_of(int(starts.min()))
        first_token, end = self._bounds[shard : shard + 2]
        if int(starts.max()) + length <= end:  # one shard holds them all: one gather, straight from its map
            return self._windows_of(shard, length)[starts - first_token if first_token else starts]
        return self._windows_of_many(starts, length)

    def _windows_of_many(self, starts: np.ndarray, length: int) -> np.ndarray:
        out = np.zeros((len(starts), length), self._dtype)
        bounds = self._bounds_array
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
        return np.concatenate([np.empty(0, np.int64), *(shard.document_lengths() for shard in self._shards)])

    def _shard_of(self, token: int) -> int:
        return bisect_right(self._bounds, token) - 1

    def _windows_of(self, shard: int, length: int) -> np.ndarray:
        """View[tokens - length + 1, length] of a shard; row w begins at token w, so that a gather copies it once."""
        view = self._views.get((shard, length))
        if view is None:  # making the view takes as long as reading ten rows through it
            view = np.lib.stride_tricks.sliding_window_view(self._map(shard), length)
            self._views[shard, length] = view
        return view

    def _map(self, shard: int) -> np.ndarray:
        tokens = self._maps.get(shard)
        if tokens is None:
            self._limit.count_one()
            tokens = self._maps[shard] = self._shards[shard].tokens()
        return tokens
