"""Random orders without memory: a keyed 64-bit mixer, and keyed permutations that can be asked at any position.

Integer arithmetic only and no library's generator, so that the order of the data is the same on every machine and
with every version of NumPy, which does not promise its own streams across versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xxhash

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the step of SplitMix64
NUM_ROUNDS = 8  # with 6, neighbours stay neighbours 16 % too often at 50 rows; with 8, no difference is to be seen
MAX_ROWS = 1 << 60  # both halves must stay below 2^32


class RowOrder(Protocol):
    """A family of permutations: one for each number of rows and each key."""

    @property
    def tag(self) -> str:
        """Stored with the state of a run; another tag is another order of the data."""
        ...

    def __call__(self, positions: np.ndarray, *, num_rows: np.ndarray, key: np.ndarray) -> np.ndarray:
        """The row at each position; all arrays are uint64[n]."""
        ...


@dataclass(frozen=True)
class Shuffle:
    """All rows of a domain in one random order."""

    tag = "shuffle"

    def __call__(self, positions: np.ndarray, *, num_rows: np.ndarray, key: np.ndarray) -> np.ndarray:
        """See `permute`."""
        return permute(positions, num_rows=num_rows, key=key)


def stream_key(seed: int, purpose: str) -> np.ndarray:
    """A key (uint64[1]) for one use of a seed, so that no two uses share their random numbers."""
    return np.array([xxhash.xxh3_64_intdigest(purpose.encode("utf-8", "surrogatepass"), seed=seed)], np.uint64)


def stream(key: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Numbers ``indices`` (uint64[n]) of the SplitMix64 stream that starts at ``key`` (uint64[1] or uint64[n]).

    uint64[n]; distinct for distinct indices.
    """
    numbers = indices * GOLDEN
    numbers += key
    return _mix(numbers)


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, in place: a bijection of uint64 in which every input bit reaches every output bit.

    Source: Stafford's variant 13 of MurmurHash3's finaliser, as in Steele, Lea and Flood 2014, Section 3.
    """
    values ^= values >> 30
    values *= 0xBF58476D1CE4E5B9
    values ^= values >> 27
    values *= 0x94D049BB133111EB
    values ^= values >> 31
    return values


def permute(positions: np.ndarray, *, num_rows: np.ndarray, key: np.ndarray) -> np.ndarray:
    """The rows at ``positions`` of a random order of ``num_rows`` rows, without building that order.

    A Feistel network permutes slightly more than ``num_rows`` values; a value outside is sent through it again until
    it falls inside (cycle walking, Black and Rogaway 2002), which keeps the map one-to-one. The time does not depend
    on ``num_rows``.

    Args:
        positions: uint64[n], each below its ``num_rows``.
        num_rows: uint64[n], from 1 to 2^60.
        key: uint64[n]; positions with the same key and number of rows share one permutation.

    Returns:
        rows, uint64[n].
    """
    rows = _feistel(positions, num_rows, key)
    outside = np.flatnonzero(rows >= num_rows)
    while outside.size:
        rows[outside] = _feistel(rows[outside], num_rows[outside], key[outside])
        outside = outside[rows[outside] >= num_rows[outside]]
    return rows


def _feistel(values: np.ndarray, num_rows: np.ndarray, key: np.ndarray) -> np.ndarray:
    """A permutation of [0, a·b), where a ≈ b ≈ √num_rows and a·b exceeds num_rows by 2 √num_rows at most.

    The value is split into two digits, left below a and right below b. Each round adds to one digit a number that
    depends on the other, modulo a or b; a binary network would have to walk through up to twice as many values.
    """
    a = np.sqrt(num_rows.astype(np.float64)).astype(np.uint64) + 1
    b = num_rows // a + 1
    right = values // a
    left = values - right * a
    for round_ in range(0, NUM_ROUNDS, 2):
        left = _add(left, _below(a, right, round_, key), a)
        right = _add(right, _below(b, left, round_ + 1, key), b)
    return right * a + left


def _below(bound: np.ndarray, digit: np.ndarray, round_: int, key: np.ndarray) -> np.ndarray:
    """A number below ``bound`` that is random in (digit, round, key): the top 32 bits of a hash, scaled."""
    numbers = stream(key, digit + (round_ << 32))
    numbers >>= 32
    numbers *= bound
    numbers >>= 32
    return numbers


def _add(digit: np.ndarray, number: np.ndarray, modulus: np.ndarray) -> np.ndarray:
    total = digit + number
    return np.minimum(total, total - modulus)  # below the modulus, the difference wraps around to a huge number
