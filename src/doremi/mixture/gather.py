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
    """Rows as they are stored, in the order of the batch."""

    domain_ids: np.ndarray  # int64[n]
    rows: np.ndarray  # int64[n], numbers of the rows within their domains
    tokens: np.ndarray  # stored dtype[n, L]
    lengths: np.ndarray  # int64[n], tokens of each row that are not padding

    def of_domain(self, index: int) -> Gathered:
        """The rows of one domain."""
        chosen = self.domain_ids == index
        return Gathered(*(array[chosen] for array in self))


def gather(
    store: RowStore, batch: Batch, *, names: tuple[str, ...], sequence_length: int, already: Gathered | None = None
) -> Gathered:
    """Read the rows of ``batch``, in one call for each domain: calls are what costs time, 22 and not 512 of them.

    Rows that are among those ``already`` read are taken from there.
    """
    by_domain = np.argsort(batch.domain_ids.astype(np.min_scalar_type(len(names))), kind="stable")
    ends = np.cumsum(np.bincount(batch.domain_ids, minlength=len(names))).tolist()
    gathered: Gathered | None = None
    for index, (name, start, end) in enumerate(zip(names, [0, *ends], ends, strict=False)):
        if start == end:
            continue
        places = by_domain[start:end]
        rows = batch.rows[places]
        if already is None:
            tokens, lengths = store.rows(name, rows, sequence_length)
        else:
            tokens, lengths = _missing_rows(store, name, rows, already=already.of_domain(index))
        if gathered is None:  # only the rows themselves say how they are stored
            space = np.empty((len(by_domain), sequence_length), tokens.dtype)
            gathered = Gathered(*batch, space, np.empty(len(by_domain), np.int64))
        gathered.tokens[places], gathered.lengths[places] = tokens, lengths
    assert gathered is not None  # no batch is empty
    return gathered


def _missing_rows(store: RowStore, name: str, rows: np.ndarray, *, already: Gathered) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and lengths of ``rows`` of a domain; only those not among ``already``, of the same domain, are read."""
    if not len(already.rows):
        return store.rows(name, rows, already.tokens.shape[1])
    order = np.argsort(already.rows)
    places = order[np.minimum(np.searchsorted(already.rows, rows, sorter=order), len(order) - 1)]
    tokens, lengths = already.tokens[places], already.lengths[places]
    missing = already.rows[places] != rows
    if missing.any():
        tokens[missing], lengths[missing] = store.rows(name, rows[missing], already.tokens.shape[1])
    return tokens, lengths


def to_tensors(rows: Gathered, *, documents: Documents, eos_token_id: int) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``labels`` (int64[B, L]), ``domain_ids`` and ``rows`` (int64[B]), and up to two more.

    Labels are the inputs, not shifted, as Hugging Face models expect them. Without padding they are the same tensor as
    ``input_ids``, which saves a third of the time: do not write to one in place. With padding, ``attention_mask``
    (int64[B, L]) is 0 there and the label is -100. With separate documents there are ``position_ids`` (int64[B, L]).
    """
    input_ids = torch.empty(rows.tokens.shape, dtype=torch.int64)
    input_ids.numpy()[:] = rows.tokens  # torch's own cast starts its threads: ten times as long on a busy machine
    batch = {
        "input_ids": input_ids,
        "labels": input_ids,
        "domain_ids": torch.from_numpy(rows.domain_ids),
        "rows": torch.from_numpy(rows.rows),
    }
    length = input_ids.shape[1]
    if (rows.lengths < length).any():
        is_token = torch.from_numpy(np.arange(length) < rows.lengths[:, None])
        batch["attention_mask"] = is_token.long()
        batch["labels"] = input_ids.masked_fill(~is_token, IGNORE_INDEX)
    if documents == "separate":
        batch["position_ids"] = torch.from_numpy(document_positions(rows.tokens, eos_token_id=eos_token_id))
    return batch


def document_positions(tokens: np.ndarray, *, eos_token_id: int) -> np.ndarray:
    """The position of each token in its document, int64[B, L]: 0 at every EOS and at the beginning of the row.

    An EOS ends one document and, at position 0, is what the first token of the next is predicted from, as in the
    evaluation, where EOS precedes every document. Attention that is cut where positions restart keeps documents apart.
    """
    positions = np.arange(tokens.shape[1])
    starts = np.where(tokens == eos_token_id, positions, 0)
    return positions - np.maximum.accumulate(starts, axis=1)
