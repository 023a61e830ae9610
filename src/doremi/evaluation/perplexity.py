"""Held-out loss of a causal LM, by domain and by evaluation set: nats per token and bits per byte, in float32.

Each document is scored alone, after an EOS prefix, every token of it once, without a final EOS. Windows are those of
lm-evaluation-harness' rolling log-likelihood, which therefore gives the same numbers where its prefix is EOS too: it
takes BOS where the tokenizer has one of its own (``prefix_token_id`` of its ``hf`` model changes that), which moved the
mean by 1.1e-3 nats per token. The scored parts are disjoint, and a last window that is shorter than the sequence length
looks back as far as the length allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from doremi.errors import NotFiniteError
from doremi.evidence.paired_documents import DocumentLosses
from doremi.evidence.schema import EvaluationSet
from doremi.evidence.targets import SetSizes
from doremi.launch import progress
from doremi.models import attention
from doremi.models.token_loss import IGNORE_INDEX, target_nats

if TYPE_CHECKING:
    from doremi.corpus import TokenStore
    from doremi.corpus.config import Split


_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2  # its multiples mod 1 spread evenly however many are taken


class Window(NamedTuple):
    """Input tokens and, aligned with their end, the tokens to predict."""

    inputs: np.ndarray  # int64[n], n <= sequence length
    targets: np.ndarray  # int64[m], m <= n: target i follows inputs[: n - m + i + 1]
    document: int = 0  # of those of its domain or set that are scored


@dataclass(frozen=True)
class HeldOutSet:
    """The windows of every domain and then of every evaluation set, ready to be scored by any number of models.

    Each is scored in batches of its own, so that no number of a domain depends on what sets there are.
    """

    names: tuple[str, ...]  # domains first
    windows: tuple[tuple[Window, ...], ...]  # by domain or set
    documents: tuple[np.ndarray, ...]  # int64[n] by domain or set: which of the store's documents are scored
    num_tokens: np.ndarray  # int64[k], tokens that are scored
    bytes_per_token: np.ndarray  # float64[k]; NaN where it is not known
    sets: tuple[str, ...] = ()  # the last of the names: text that belongs to no domain


def describe(held_out: HeldOutSet) -> dict[str, EvaluationSet]:
    """The size of what is scored of every domain and set."""
    parts = zip(
        held_out.names, held_out.num_tokens.tolist(), held_out.bytes_per_token.tolist(), held_out.documents, strict=True
    )
    return {
        name: EvaluationSet(
            tokens=num_tokens,
            bytes=round(num_tokens * per_token) if math.isfinite(per_token) else None,
            documents=len(documents),
            trained_on=name not in held_out.sets,
        )
        for name, num_tokens, per_token, documents in parts
    }


def set_sizes(held_out: HeldOutSet) -> SetSizes:
    """What a target has to know of what is scored."""
    per_token = dict(zip(held_out.names, held_out.bytes_per_token.tolist(), strict=True))
    return SetSizes(per_token, held_out.sets)


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
    """The held-out documents of each of the domains ``names``, and those of every set of the store, up to the cap.

    Bytes per token are those of the whole text, not of what the cap leaves.
    """
    all_names, bytes_per_token = [*names, *store.sets], []
    for name in all_names:
        num_scored, num_bytes = num_tokens_to_score(store, name), store.num_bytes(name, split=split_of(store, name))
        bytes_per_token.append(num_bytes / num_scored if num_bytes and num_scored else math.nan)
    held_out = in_windows(
        {name: capped_documents(store, name, max_tokens_per_domain) for name in all_names},
        sequence_length=sequence_length,
        prefix_token=store.eos_token_id,
        bytes_per_token=np.array(bytes_per_token),
    )
    return replace(held_out, sets=store.sets)


def split_of(store: TokenStore, name: str) -> Split:
    """What is scored of a domain or an evaluation set."""
    return "set" if name in store.sets else "held_out"


def num_tokens_to_score(store: TokenStore, name: str) -> int:
    """Tokens that are scored of a domain or an evaluation set without a cap: no EOS is among them."""
    split = split_of(store, name)
    return store.num_tokens(name, split=split) - store.num_documents(name, split=split)


def capped_documents(store: TokenStore, name: str, max_tokens: int | None) -> dict[int, np.ndarray]:
    """Documents to score (int[n], without their EOS) by their place in the store, the last one cut at the cap.

    They are from all over the domain or set, since stored order follows the input files.
    """
    documents = list(store.documents(name, split=split_of(store, name)))
    left = math.inf if max_tokens is None else max_tokens
    spread = np.argsort(np.arange(len(documents)) * _GOLDEN_RATIO % 1, kind="stable")
    found: dict[int, np.ndarray] = {}
    for index in spread.tolist():
        if left <= 0:
            break
        found[index] = documents[index][: None if math.isinf(left) else int(left)]
        left -= len(documents[index])
    return found


def scored_documents(windows: Iterable[Window]) -> Iterator[np.ndarray]:
    """int64[n] each: the scored tokens of a domain or set, document by document, as `in_windows` was given them."""
    for _, of_document in groupby(windows, key=lambda window: window.document):
        yield np.concatenate([window.targets for window in of_document])


def in_windows(
    documents: Mapping[str, Mapping[int, np.ndarray]],
    *,
    sequence_length: int,
    prefix_token: int,
    bytes_per_token: np.ndarray,
) -> HeldOutSet:
    """Documents by domain or set and by place, int[n] each, cut into windows; ``bytes_per_token`` float64[k]."""
    windows = [
        tuple(
            window._replace(document=position)
            for position, document in enumerate(of_domain.values())
            for window in rolling_windows(document, sequence_length=sequence_length, prefix_token=prefix_token)
        )
        for of_domain in documents.values()
    ]
    return HeldOutSet(
        names=tuple(documents),
        windows=tuple(windows),
        documents=tuple(np.array(list(of_domain), np.int64) for of_domain in documents.values()),
        num_tokens=np.array([sum(len(w.targets) for w in domain) for domain in windows], np.int64),
        bytes_per_token=bytes_per_token,
    )


def document_losses(
    model: torch.nn.Module, held_out: HeldOutSet, *, batch_size: int, description: str = "evaluate"
) -> dict[str, DocumentLosses]:
    """The losses of each document, by domain and set, in the order of ``held_out.documents``; shows its progress.

    Raises:
        NotFiniteError: a domain's loss is not finite.
    """
    losses = {}
    with progress.shown(description, total=sum(map(len, held_out.windows)), unit="windows") as advance:
        for name, windows, documents in zip(held_out.names, held_out.windows, held_out.documents, strict=True):
            of_windows = _window_nats(model, windows, batch_size=batch_size, progress=advance)
            which = np.array([window.document for window in windows], np.int64)
            sizes = np.array([len(window.targets) for window in windows], np.int64)
            num_tokens = np.bincount(which, weights=sizes, minlength=len(documents)).astype(np.int64)
            losses[name] = DocumentLosses(np.bincount(which, weights=of_windows, minlength=len(documents)), num_tokens)
            _check_finite(held_out, name, losses[name].nats.sum())
    return losses


def nats_per_token(model: torch.nn.Module, held_out: HeldOutSet, *, batch_size: int) -> np.ndarray:
    """float64[k]: mean loss of each domain's and set's tokens. The model's mode is restored afterwards.

    Raises:
        NotFiniteError: a domain's loss is not finite.
    """
    return mean_nats(nats_sums(model, held_out, batch_size=batch_size), held_out)


def nats_sums(model: torch.nn.Module, held_out: HeldOutSet, *, batch_size: int) -> np.ndarray:
    """float64[k]: the losses of each domain's and set's tokens added up, finite or not."""
    return np.array([_window_nats(model, windows, batch_size=batch_size).sum() for windows in held_out.windows])


def mean_nats(sums: np.ndarray, held_out: HeldOutSet) -> np.ndarray:
    """float64[k]: the means of `nats_sums`; a domain without held-out text has 0.

    Raises:
        NotFiniteError: a domain's loss is not finite.
    """
    means = sums / np.maximum(held_out.num_tokens, 1)
    for name, value in zip(held_out.names, means, strict=True):
        _check_finite(held_out, name, value)
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


def finite(value: float) -> float | None:
    """For JSON, which has no NaN: None where bytes are unknown."""
    return value if math.isfinite(value) else None


def _window_nats(
    model: torch.nn.Module,
    windows: Sequence[Window],
    *,
    batch_size: int,
    progress: Callable[[int], object] = lambda num_windows: None,
) -> np.ndarray:
    """float64[number of windows]: the losses of the targets of each, added up."""
    device = next(model.parameters()).device
    nats = np.zeros(len(windows))
    by_length = np.argsort([len(window.inputs) for window in windows], kind="stable")  # little padding in a batch
    with _evaluating(model):
        for start in range(0, len(windows), batch_size):
            batch = by_length[start : start + batch_size]
            nats[batch] = _batch_nats(model, [windows[index] for index in batch], device)
            progress(len(batch))
    return nats


def _batch_nats(model: torch.nn.Module, windows: Sequence[Window], device: torch.device) -> np.ndarray:
    # Padding on the right needs no attention mask: in a causal LM no scored position sees it.
    length = max(len(window.inputs) for window in windows)
    inputs = torch.zeros(len(windows), length, dtype=torch.int64)
    targets = torch.full((len(windows), length), IGNORE_INDEX, dtype=torch.int64)
    for row, window in enumerate(windows):
        size = len(window.inputs)
        inputs[row, :size] = torch.from_numpy(window.inputs)
        targets[row, size - len(window.targets) : size] = torch.from_numpy(window.targets)
    nats = target_nats(model, {"input_ids": inputs.to(device)}, targets.to(device))
    return nats.sum(dim=1, dtype=torch.float64).cpu().numpy()


def _check_finite(held_out: HeldOutSet, name: str, value: float) -> None:
    if not math.isfinite(value):
        what = "loss of evaluation set" if name in held_out.sets else "held-out loss of domain"
        raise NotFiniteError(f"the {what} {name!r} is {value}; the model has diverged")


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), attention.in_float32(model):
            yield
    finally:
        model.train(was_training)
