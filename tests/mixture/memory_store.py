"""A token store in memory whose tokens say where they come from."""

from __future__ import annotations

import numpy as np

EOS = 0


class MemoryStore:
    """Token j of row i of domain d is ``1 + (d · 1000 + i) · 10 + j % 10``, so a row names itself.

    ``lengths`` makes rows short: {(domain, row): number of tokens}, padded with EOS.
    """

    eos_token_id = EOS

    def __init__(self, counts, *, digest="corpus-1", tokenizer_digest="tokenizer-1", lengths=None):
        self.names = tuple(counts)
        self._counts, self._lengths = counts, lengths or {}
        self.digest, self.tokenizer_digest = digest, tokenizer_digest
        self.num_calls = 0

    def num_sequences(self, name, sequence_length):
        return self._counts[name]

    def rows(self, name, indices, sequence_length):
        self.num_calls += 1
        assert ((indices >= 0) & (indices < self._counts[name])).all()
        domain = self.names.index(name)
        tokens = 1 + (domain * 1000 + indices[:, None]) * 10 + np.arange(sequence_length) % 10
        lengths = np.array([self._lengths.get((name, int(row)), sequence_length) for row in indices])
        tokens[np.arange(sequence_length) >= lengths[:, None]] = EOS
        return tokens.astype(np.int32), lengths


def origins(batch):
    """[(domain id, row), ...] of a batch of tensors, read off the tokens."""
    ids = (batch["input_ids"][:, 0] - 1) // 10
    return [(int(i) // 1000, int(i) % 1000) for i in ids]
