"""Held-out loss of a causal LM, domain by domain: nats per token and bits per byte, in float32.

Each document is scored alone, after an EOS prefix, every token of it once, without a final EOS. Windows are those of
lm-evaluation-harness' rolling log-likelihood, which therefore gives the same numbers: the scored parts are disjoint,
and a last window that is shorter than the sequence length looks back as far as the length allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from doremi.errors import RunFailedError
from doremi.training.models import float32_attention
from doremi.training.token_loss import IGNORE_INDEX, target_nats

if TYPE_CHECKING:
    from doremi.corpus import TokenStore


_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2  # its multiples mod 1 spread evenly however many are taken


class Window(NamedTuple):
    """Input tokens and, aligned with their end, the tokens to predict."""

    inputs: np.ndarray  # int64[n], n <= sequence length
    targets: np.ndarray  # int64[m], m <= n: target i follows inputs[: n - m + i + 1]


@dataclass(frozen=True)
class HeldOutSet:
    """The windows of every domain, ready to be scored by any number of models."""

    names: tuple[str, ...]
    windows: tuple[tuple[Window, ...], ...]  # by domain
    num_tokens: np.ndarray  # int64[k], tokens that are scored
    bytes_per_token: np.ndarray  # float64[k], of the whole held-out text; NaN where it is not known


def rolling_windows(document: np.ndarray, *, sequence_length: int, prefix_token: int) -> Iterator[Window]:
    """Windows that score every token of ``document`` (int[n], without its EOS) exactly once."""
    tokens = np.concatenate([[prefix_token], document]).astype(np.int64)  # token i of the document is tokens[i + 1]
    for start in range(0, len(document), sequence_length):
        end = min(start + sequence_length, len(document))
        context_start = max(end - sequence_length, 0) if start else 0
        yield Window(inputs=tokens[context_start:end], targets=tokens[start + 1 : end + 1])


def collect(
    store: TokenStore, names: Sequence[str], *, sequence_length: int, max_tokens_per_domain: int | None
) -> HeldOutSet:
    """The held-out documents of each domain, up to the cap."""
    windows, bytes_per_token = [], []
    for name in names:
        documents = _capped(list(store.documents(name, split="held_out")), max_tokens_per_domain)
        windows.append(
            tuple(
                window
                for document in documents
                for window in rolling_windows(
                    document, sequence_length=sequence_length, prefix_token=store.eos_token_id
                )
            )
        )
        num_scored = store.num_tokens(name, split="held_out") - store.num_documents(name, split="held_out")
        num_bytes = store.num_bytes(name, split="held_out")
        bytes_per_token.append(num_bytes / num_scored if num_bytes and num_scored else math.nan)
    return HeldOutSet(
        names=tuple(names),
        windows=tuple(windows),
        num_tokens=np.array([sum(len(w.targets) for w in domain) for domain in windows], np.int64),
        bytes_per_token=np.array(bytes_per_token),
    )


def nats_per_token(model: torch.nn.Module, held_out: HeldOutSet, *, batch_size: int) -> np.ndarray:
    """float64[k]: mean loss of each domain's held-out tokens. The model's mode is restored afterwards.

    Raises:
        RunFailedError: a domain's loss is not finite.
    """
    return mean_nats(nats_sums(model, held_out, batch_size=batch_size), held_out)


def nats_sums(model: torch.nn.Module, held_out: HeldOutSet, *, batch_size: int) -> np.ndarray:
    """float64[k]: the losses of each domain's held-out tokens added up, finite or not."""
    device = next(model.parameters()).device
    sums = np.zeros(len(held_out.names))
    with _evaluating(model):
        for domain, windows in enumerate(held_out.windows):
            by_length = sorted(windows, key=lambda window: len(window.inputs))  # little padding in a batch
            for start in range(0, len(by_length), batch_size):
                sums[domain] += _sum_nats(model, by_length[start : start + batch_size], device)
    return sums


def mean_nats(sums: np.ndarray, held_out: HeldOutSet) -> np.ndarray:
    """float64[k]: the means of `nats_sums`; a domain without held-out text has 0.

    Raises:
        RunFailedError: a domain's loss is not finite.
    """
    means = sums / np.maximum(held_out.num_tokens, 1)
    for name, value in zip(held_out.names, means, strict=True):
        if not math.isfinite(value):
            raise RunFailedError(f"the held-out loss of domain {name!r} is {value}; the model has diverged")
    return means


def share(held_out: HeldOutSet, *, rank: int, world_size: int) -> HeldOutSet:
    """The windows that one of several processes scores: every ``world_size``-th of a domain, in order of length.

    Every process gets the same number of windows, since under FSDP all of them must call the model equally often. What
    is missing for that are windows of one token with nothing to predict, which add nothing to the sums.
    """
    blank = Window(inputs=np.zeros(1, np.int64), targets=np.zeros(0, np.int64))
    windows = []
    for domain in held_out.windows:
        by_length = sorted(domain, key=lambda window: len(window.inputs))
        windows.append(tuple([*by_length, *[blank] * (-len(by_length) % world_size)][rank::world_size]))
    num_tokens = np.array([sum(len(window.targets) for window in domain) for domain in windows], np.int64)
    return replace(held_out, windows=tuple(windows), num_tokens=num_tokens)


def bits_per_byte(nats: np.ndarray, held_out: HeldOutSet) -> np.ndarray:
    """float64[k]: nats per token in bits per UTF-8 byte, comparable across tokenizers; NaN where bytes are unknown."""
    return nats / math.log(2) / held_out.bytes_per_token


def _sum_nats(model: torch.nn.Module, windows: Sequence[Window], device: torch.device) -> float:
    # Padding on the right needs no attention mask: in a causal LM no scored position sees it.
    length = max(len(window.inputs) for window in windows)
    inputs = torch.zeros(len(windows), length, dtype=torch.int64)
    targets = torch.full((len(windows), length), IGNORE_INDEX, dtype=torch.int64)
    for row, window in enumerate(windows):
        size = len(window.inputs)
        inputs[row, :size] = torch.from_numpy(window.inputs)
        targets[row, size - len(window.targets) : size] = torch.from_numpy(window.targets)
    nats = target_nats(model, {"input_ids": inputs.to(device)}, targets.to(device))
    return float(nats.sum(dtype=torch.float64))


def _capped(documents: Sequence[np.ndarray], max_tokens: int | None) -> Iterator[np.ndarray]:
    """Documents from all over the domain (stored order follows the input files), the last one cut at the cap."""
    left = math.inf if max_tokens is None else max_tokens
    spread = np.argsort(np.arange(len(documents)) * _GOLDEN_RATIO % 1, kind="stable")
    for index in spread:
        if left <= 0:
            return
        yield documents[index][: None if math.isinf(left) else int(left)]
        left -= len(documents[index])


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), float32_attention(model):
            yield
    finally:
        model.train(was_training)
