"""Any causal LM that transformers loads on the held-out text of a corpus, whatever its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedModel

from doremi.corpus.tokenizing import tokenizers
from doremi.errors import InputError
from doremi.evaluation import perplexity
from doremi.evaluation.perplexity import HeldOutSet, num_tokens_to_score
from doremi.evidence.comparing import nats_per_token
from doremi.evidence.comparison import summarise
from doremi.evidence.paired_documents import DocumentLosses
from doremi.models import configurations, pretrained, probes, saved_files

if TYPE_CHECKING:
    from doremi.corpus import TokenStore

DEFAULT_LENGTH = 1024  # tokens, upstream's and the paper's


@dataclass(frozen=True)
class CheckpointLosses:
    """One model on the held-out text and the sets of a corpus; losses are per token of its own tokenizer, bits per
    byte compare across them.
    """

    model: str
    own_tokenizer: bool  # whether it is another one than the corpus'
    sequence_length: int
    num_tokens: dict[str, int]
    nats: dict[str, float]
    bits_per_byte: dict[str, float | None]  # None: the bytes are not known
    documents: dict[str, DocumentLosses]
    sets: tuple[str, ...] = ()  # the names that are no domains'

    def to_dict(self, reference_weights: Mapping[str, float]) -> dict[str, Any]:
        """As JSON: every domain and set, and the three summaries of nats per token over the domains.

        Args:
            reference_weights: a domain without one counts as 0.

        Raises:
            InputError: no domain that was scored has a weight above 0.
        """
        domains = {name: nats for name, nats in self.nats.items() if name not in self.sets}
        weights = {name: reference_weights.get(name, 0.0) for name in domains}
        if not any(weights.values()):
            scored = ", ".join(map(repr, list(domains)[:5]))
            raise InputError(f"no domain with held-out text has a reference weight; give weights of {scored}")
        summary = summarise(domains, weights)
        return {
            "model": self.model,
            "own_tokenizer": self.own_tokenizer,
            "sequence_length": self.sequence_length,
            "domains": {name: self._part(name) for name in domains},
            "sets": {name: self._part(name) for name in self.sets},
            "uniform_mean_nats": summary.uniform_mean,
            "reference_mean_nats": summary.reference_mean,
            "worst_nats": summary.worst,
            "worst_domain": summary.worst_domain,
        }

    def _part(self, name: str) -> dict[str, Any]:
        return {
            "num_tokens": self.num_tokens[name],
            "num_documents": len(self.documents[name].nats),
            "nats": self.nats[name],
            "bits_per_byte": self.bits_per_byte[name],
            "perplexity": math.exp(self.nats[name]),
        }


def evaluate(
    model: str,
    store: TokenStore,
    *,
    sequence_length: int | None = None,
    default_length: int = DEFAULT_LENGTH,
    max_tokens_per_domain: int | None = None,
    batch_size: int = 64,
) -> CheckpointLosses:
    """The losses of a model on a corpus' held-out documents and evaluation sets, in float32; shows its progress.

    A model with another tokenizer than the corpus' gets the same text, decoded and tokenised anew.

    Args:
        model: folder, or hub id.
        store: the corpus; domains without held-out text are left out.
        sequence_length: of the windows; None: ``default_length``, or the model's longest where that is shorter.
        default_length: that of the run that the models are compared in.
        max_tokens_per_domain: cap in tokens of the corpus, the same text for every model; default: all of it.
        batch_size: windows per forward pass; the result does not depend on it.

    Raises:
        InputError: there is no such model or tokenizer, the sequences are too long for it, or nothing is held out.
        RunFailedError: a loss is not finite.
    """
    loaded = load_model(model)
    length = _length(loaded, model, sequence_length, default=default_length)
    names = [name for name in store.names if num_tokens_to_score(store, name) > 0]
    if not names:
        raise InputError(f"{store.path}: no held-out text; prepare the corpus with corpus.held_out_fraction above 0")
    tokenizer = tokenizers.load(model)
    other = tokenizer.entry.digest != store.tokenizer_digest
    if other:
        held_out = _tokenised_anew(
            store, [*names, *store.sets], model, tokenizer, length=length, cap=max_tokens_per_domain
        )
    else:
        held_out = perplexity.collect(store, names, sequence_length=length, max_tokens_per_domain=max_tokens_per_domain)
        held_out = with_bytes_of_scored_text(held_out, store)
    losses = perplexity.document_losses(loaded, held_out, batch_size=batch_size, description=f"evaluate {model}")
    nats = nats_per_token(losses)
    bits = perplexity.bits_per_byte(np.array(list(nats.values())), held_out)
    return CheckpointLosses(
        model=model,
        own_tokenizer=other,
        sequence_length=length,
        num_tokens=dict(zip(held_out.names, held_out.num_tokens.tolist(), strict=True)),
        nats=nats,
        bits_per_byte={name: perplexity.finite(value) for name, value in zip(nats, bits.tolist(), strict=True)},
        documents=losses,
        sets=held_out.sets,
    )


def with_bytes_of_scored_text(held_out: HeldOutSet, store: TokenStore) -> HeldOutSet:
    """The set with bytes per token of what is scored: under a cap, those of all held-out text are of other documents.

    Bits per byte would then depend on how the cap falls, and not be those of a model that tokenises the text anew.
    """
    tokenizer = tokenizers.load(str(store.tokenizer_path))
    bytes_per_token = held_out.bytes_per_token.copy()
    for index, (name, num_tokens) in enumerate(zip(held_out.names, held_out.num_tokens.tolist(), strict=True)):
        if 0 < num_tokens < num_tokens_to_score(store, name) and np.isfinite(bytes_per_token[index]):
            documents = perplexity.scored_documents(held_out.windows[index])
            bytes_per_token[index] = sum(map(tokenizer.count_bytes, documents)) / num_tokens
    return replace(held_out, bytes_per_token=bytes_per_token)


def load_model(model: str | Path) -> PreTrainedModel:
    """A causal LM in float32, on the GPU where there is one.

    Raises:
        InputError: what `pretrained.load` refuses, or its losses show that it is not causal.
    """
    try:
        loaded = float32_model(model)
    except InputError as error:
        if within := _models_within(model):
            raise InputError(f"{error}{within}") from None
        raise
    _check_causal(loaded, model)
    return loaded


def _models_within(model: str | Path) -> str:
    """The models of a run directory, which was given in their place."""
    folder = Path(model)
    found = sorted(folder.glob("runs/*/config.json"))
    names = ", ".join(str(path.parent) for path in found[:5])
    return f". The models in this run directory are {names}{', ...' if len(found) > 5 else ''}" if found else ""


def _check_causal(loaded: PreTrainedModel, model: str | Path) -> None:
    """An encoder has losses too; they are of tokens that it has seen."""
    config = configurations.text_part(loaded.config)
    length = configurations.num_positions(config) or probes.PROBE_LENGTH
    try:
        probes.Probe(loaded, vocab_size=config.vocab_size, sequence_length=length).check(documents="joined")
    except InputError as error:
        raise InputError(f"{model}: {error}") from None


def float32_model(model: str | Path) -> PreTrainedModel:
    """What `load_model` loads, without asking whether it is causal; raises what `pretrained.load` does.

    Raises:
        RunFailedError: it was trained or saved here, and a file was changed since.
    """
    saved_files.check(Path(model))
    return pretrained.load(model).to("cuda" if torch.cuda.is_available() else "cpu")


def _length(loaded: PreTrainedModel, model: str, asked: int | None, *, default: int = DEFAULT_LENGTH) -> int:
    longest = configurations.num_positions(loaded.config)
    if asked is not None and longest is not None and asked > longest:
        raise InputError(f"{model}: sequences of {asked} tokens, the model takes at most {longest}")
    return asked or min(longest or default, default)


def _tokenised_anew(
    store: TokenStore,
    names: list[str],
    model: str,
    tokenizer: tokenizers.CorpusTokenizer,
    *,
    length: int,
    cap: int | None,
) -> HeldOutSet:
    corpus_tokenizer = tokenizers.load(str(store.tokenizer_path))
    documents, bytes_per_token = {}, []
    for name in names:
        tokens = perplexity.capped_documents(store, name, cap)
        texts = [corpus_tokenizer.decode(document) for document in tokens.values()]
        ids = tokenizer.encode(texts)
        documents[name] = dict(zip(tokens, ids.split(), strict=True))
        bytes_per_token.append(sum(len(text.encode()) for text in texts) / max(len(ids.flat), 1))
    held_out = perplexity.in_windows(
        documents,
        sequence_length=length,
        prefix_token=_prefix_token(model, tokenizer),
        bytes_per_token=np.array(bytes_per_token),
    )
    return replace(held_out, sets=store.sets)


def _prefix_token(model: str, tokenizer: tokenizers.CorpusTokenizer) -> int:
    """What stands before a document, as in lm-evaluation-harness: BOS, or EOS where there is none."""
    begin = AutoTokenizer.from_pretrained(model).bos_token_id
    return tokenizer.entry.eos_token_id if begin is None else begin
