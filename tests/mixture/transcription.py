"""The method's page, Sampling, in plain Python: big integers, one row at a time, nothing worked out ahead."""

from __future__ import annotations

import math

import xxhash

MASK, GOLDEN, ONE = 2**64 - 1, 0x9E3779B97F4A7C15, 2**40


def key(seed, purpose):
    return xxhash.xxh3_64_intdigest(purpose.encode(), seed=seed)


def stream(key, index):
    x = (key + index * GOLDEN) & MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def permute(position, num_rows, key):
    a = math.isqrt(num_rows) + 1
    b = num_rows // a + 1
    right, left = divmod(position, a)
    for round_ in range(0, 8, 2):
        left = (left + ((stream(key, (round_ << 32) + right) >> 32) * a >> 32)) % a
        right = (right + ((stream(key, (round_ + 1 << 32) + left) >> 32) * b >> 32)) % b
    row = right * a + left
    return row if row < num_rows else permute(row, num_rows, key)


def balanced_counts(weights, credits, batch_size):
    """Rows of each domain; ``weights`` and ``credits`` in units of 2^-40 of a row, the latter updated in place."""
    counts = [weight * batch_size // ONE for weight in weights]
    for i, weight in enumerate(weights):
        credits[i] += weight * batch_size % ONE
    while sum(counts) < batch_size:
        largest = credits.index(max(credits))
        counts[largest] += 1
        credits[largest] -= ONE
    return counts


def iid_counts(weights, batch_size, *, seed, step):
    counts = [0] * len(weights)
    for position in range(batch_size):
        point = stream(stream(key(seed, "iid draws"), step), position) >> 24
        domain = 0
        while point >= weights[domain]:
            point -= weights[domain]
            domain += 1
        counts[domain] += 1
    return counts


def batches(sequence_counts, weights, batch_size, *, seed, mode="balanced"):
    """Yield [(domain id, row), ...] for ever; ``weights`` in units of 2^-40."""
    names, sizes = list(sequence_counts), list(sequence_counts.values())
    credits, drawn, step = [0] * len(names), [0] * len(names), 0
    while True:
        if mode == "balanced":
            counts = balanced_counts(weights, credits, batch_size)
        else:
            counts = iid_counts(weights, batch_size, seed=seed, step=step)
        batch = []
        for i, count in enumerate(counts):
            for _ in range(count):
                epoch, position = divmod(drawn[i], sizes[i])
                epoch_key = stream(key(seed, f"rows:{names[i]}"), epoch)
                batch.append((i, permute(position, sizes[i], epoch_key)))
                drawn[i] += 1
        batch_key = stream(key(seed, "batch order"), step)
        order = sorted(range(batch_size), key=lambda position: stream(batch_key, position))
        yield [batch[position] for position in order]
        step += 1
