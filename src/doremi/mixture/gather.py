"""Rows of many domains to the tensors that a causal language model takes."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch

from doremi.mixture.schedule import Batch

IGNORE_INDEX = -100  # a label that no loss is computed for, as in PyTorch and Hugging Face

Documents = Literal["joined", "separate"]


class RowStore(Protocol):
    """What is needed of a token store; `doremi.corpus.TokenStore` is one."""

    @property
    def digest(self) -> str:
        """Identifies the content."""
        ...

    @property
    def tokenizer_digest(self) -> str:
        """Identifies the tokenizer that made the tokens."""
        ...

    @property
    def eos_token_id(self) -> int:
        """The token between two documents."""
        ...

    def num_sequences(self, name: str, sequence_length: int) -> int:
        """Rows of a domain."""
        ...

    def rows(self, name: str, indices: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
        """``tokens[n, L]`` of any integer type, and int64[n] how many tokens of each row are not padding."""
        ...


class Gathered(NamedTuple):
    """Rows read from a store, in the order of their domains; row i of the batch is at ``places[i]``."""

    domain_ids: np.ndarray  # int64[n], in the order of the batch
    places: np.ndarray  # int64[n]
    tokens: np.ndarray  # stored dtype[n, L]
    lengths: np.ndarray  # int64[n]


def gather(store: RowStore, batch: Batch, *, names: tuple[str, ...], sequence_length: int) -> Gathered:
    """Read the rows of ``batch`` with one call per domain, which is what costs time: 22 calls, not 512."""
    by_domain = np.argsort(batch.domain_ids.astype(np.min_scalar_type(len(names))), kind="stable")
    rows = batch.rows[by_domain]
    ends = np.cumsum(np.bincount(batch.domain_ids, minlength=len(names))).tolist()
    parts = [
        store.rows(name, rows[start:end], sequence_length)
        for name, start, end in zip(names, [0, *ends], ends, strict=False)
        if end > start
    ]
    places = np.empty_like(by_domain)
    places[by_domain] = np.arange(len(by_domain))
    tokens, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Gathered(batch.domain_ids, places, tokens, lengths)


def to_tensors(rows: Gathered, *, documents: Documents, eos_token_id: int) -> dict[str, torch.Tensor]:
    """``input_ids``, ``labels`` (int64[B, L]), ``domain_ids`` (int64[B]) and, where they say something, two more.

    Labels are the inputs, not shifted, as Hugging Face models expect them. Without padding they are the same memory as
    ``input_ids``, which saves a third of the time: do not write to one in place. With padding, ``attention_mask``
    (int64[B, L]) is 0 there and the label is -100. With separate documents there are ``position_ids`` (int64[B, L]).
    """
    # NumPy does all of it: torch would start its threads for each copy, and take ten times as long on a busy machine.
    tokens = rows.tokens[rows.places].astype(np.int64, copy=False)
    lengths, length = rows.lengths[rows.places], tokens.shape[1]
    batch = {"input_ids": tokens, "labels": tokens, "domain_ids": rows.domain_ids}
    if (lengths < length).any():
        is_token = np.arange(length) < lengths[:, None]
        batch["attention_mask"] = is_token.astype(np.int64)
        batch["labels"] = np.where(is_token, tokens, IGNORE_INDEX)
    if documents == "separate":
        batch["position_ids"] = document_positions(tokens, eos_token_id=eos_token_id)
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def document_positions(tokens: np.ndarray, *, eos_token_id: int) -> np.ndarray:
    """The position of each token in its document, int64[B, L]: 0 at every EOS and at the beginning of the row.

    An EOS ends one document and, at position 0, is what the first token of the next is predicted from, as in the
    evaluation, where EOS precedes every document. Attention that is cut where positions restart keeps documents apart.
    """
    positions = np.arange(tokens.shape[1])
    starts = np.where(tokens == eos_token_id, positions, 0)
    return positions - np.maximum.accumulate(starts, axis=1)
