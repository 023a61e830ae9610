"""Which documents are held out: a pure function of their content, so that exact duplicates stay on one side."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xxhash

from doremi import files
from doremi.corpus.config import Split
from doremi.corpus.reading.documents import Document
from doremi.corpus.tokenizing.long_texts import cut_at_spaces

_HASH_RANGE = 1 << 64
HELD_OUT_ELSEWHERE = "training document equal to a held-out one"
IN_A_SET = "training document equal to one of an evaluation set"
MAX_SAMPLED_CHARACTERS = 1 << 20  # of a piece: training a BPE on more takes a hundred bytes for each


class HeldOutRule:
    """The split of documents that no folder and no input decides.

    Args:
        fraction: share of the range of XXH3-64 that is held out.
        hashes: sorted uint64[n], the contents of all documents that are held out by their place; a training document
            with one of them is left out, so that nothing is trained on and evaluated.
        set_hashes: the same of all documents of evaluation sets. A document of theirs that is held out stays in both.
    """

    def __init__(self, fraction: float, hashes: np.ndarray | None = None, set_hashes: np.ndarray | None = None) -> None:
        self._threshold = int(fraction * _HASH_RANGE)
        self._hashes = np.empty(0, np.uint64) if hashes is None else hashes
        self._set_hashes = np.empty(0, np.uint64) if set_hashes is None else set_hashes

    def side(self, document: Document, given: Split | None) -> Split | None:
        """Where a document goes, None for nowhere. ``given`` is what its place says, if anything."""
        if given == "set":
            return given
        if given == "held_out" or (given is None and document.hash < self._threshold):
            return "held_out"
        return None if self.reason(document) else "train"

    def reason(self, document: Document) -> str | None:
        """Why a document is not trained on although its place does not hold it out; None: nothing speaks against it."""
        if _contains(self._hashes, document.hash):
            return HELD_OUT_ELSEWHERE
        return IN_A_SET if _contains(self._set_hashes, document.hash) else None


def _contains(hashes: np.ndarray, content_hash: int) -> bool:
    if len(hashes) == 0:
        return False
    index = int(np.searchsorted(hashes, np.uint64(content_hash)))
    return index < len(hashes) and int(hashes[index]) == content_hash


def write_hashes(path: Path, hashes: Iterable[int]) -> None:
    """Keep the content hashes of held-out documents, sorted uint64 little-endian, atomically."""
    with files.atomic_path(path) as beside:
        np.unique(np.fromiter(hashes, np.uint64)).astype("<u8").tofile(beside)


def read_hashes(paths: Iterable[Path]) -> np.ndarray:
    """Sorted uint64[n]: the union of what `write_hashes` wrote."""
    return np.unique(np.concatenate([np.empty(0, "<u8"), *(np.fromfile(path, "<u8") for path in paths)]))


class TextSample:
    """A sample of documents of bounded size, chosen by hash while they stream past, whatever their order and number.

    Keeps the texts whose hashes are the lowest once mixed, as many as fit: each domain is represented in proportion,
    each text once, and the result does not depend on the order in which files were read.
    """

    def __init__(self, max_bytes: float) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._kept: list[tuple[int, int, str]] = []  # a heap of (-key, bytes, text): the largest key on top
        self._keys: set[int] = set()
        self._limit = _HASH_RANGE  # the lowest key that did not fit; beyond it nothing is kept, in any order of reading

    def add(self, document: Document) -> None:
        """Consider one document, a long one piece by piece; token ids are passed over."""
        if not isinstance(document.content, str):
            return
        if len(document.content) <= MAX_SAMPLED_CHARACTERS:
            self._add(document.content, document.hash, document.num_bytes)
            return
        for piece in cut_at_spaces(document.content, MAX_SAMPLED_CHARACTERS):
            data = piece.encode()
            self._add(piece, xxhash.xxh3_64_intdigest(data), len(data))

    def _add(self, text: str, content_hash: int, num_bytes: int) -> None:
        key = _mixed(content_hash)
        if key >= self._limit or key in self._keys:
            return
        self._keys.add(key)
        heapq.heappush(self._kept, (-key, num_bytes, text))
        self._num_bytes += num_bytes
        while self._num_bytes > self._max_bytes:
            negative_key, num_bytes_out, _ = heapq.heappop(self._kept)
            self._limit = -negative_key
            self._keys.discard(self._limit)
            self._num_bytes -= num_bytes_out

    def texts(self) -> list[str]:
        """The texts kept, in the order of their keys."""
        return [text for _, _, text in sorted(self._kept, reverse=True)]


def _mixed(content_hash: int) -> int:
    """Another order of the same hashes: the held-out documents are the lowest ones themselves."""
    return content_hash * 0x9E3779B97F4A7C15 % _HASH_RANGE
