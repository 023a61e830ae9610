"""Weights and a prepared corpus, as what exporters take."""

from __future__ import annotations

from collections.abc import Mapping

from doremi.corpus import TokenStore
from doremi.corpus.config import Split
from doremi.corpus.storing.arrow_store import ArrowStore
from doremi.corpus.storing.indexed import little_endian
from doremi.corpus.storing.manifest import ShardEntry, entries
from doremi.errors import InputError
from doremi.exporters.mixture import Domain, Mixture, Shard, TokenizerFacts
from doremi.weights import DomainWeights


def from_store(weights: DomainWeights, store: TokenStore, *, source: str, num_tokens: int | None = None) -> Mixture:
    """The mixture of ``weights`` over a prepared corpus. Domains of weight 0 are left out.

    Args:
        weights: as shares of training tokens (of sequences, which are packed).
        store: the corpus that the weights are for.
        source: names the weights in errors and in what is exported.
        num_tokens: what the run to come will train on.

    Raises:
        InputError: a weighted domain is not in the corpus (the message lists what is), or has no training tokens.
    """
    kept = weights.restricted_to(store.names, source=source)
    for name in kept:
        if not store.num_tokens(name):
            raise InputError(f"{source}: domain {name!r} has no training tokens in {store.path}; remove its weight")
    shards = entries(store.manifest)
    tokenizer = TokenizerFacts(str(store.tokenizer_path.absolute()), store.tokenizer_digest, store.vocab_size)
    return Mixture(
        domains=tuple(_domain(name, kept[name], store, shards) for name in kept),
        source=source,
        corpus=str(store.path.absolute()),
        corpus_digest=store.digest,
        tokenizer=tokenizer,
        token_bytes=little_endian(store.dtype).itemsize,
        num_tokens=num_tokens,
        warnings=tuple(_doubts(weights, store)),
    )


def _domain(
    name: str, weight: float, store: TokenStore, shards: Mapping[tuple[str, Split], list[ShardEntry]]
) -> Domain:
    def of(split: Split) -> tuple[Shard, ...]:
        if isinstance(store, ArrowStore):
            return ()
        root = store.path.absolute()
        return tuple(Shard(str(root / entry.file), entry.tokens) for entry in shards[name, split] if entry.tokens)

    return Domain(
        name=name,
        weight=weight,
        documents=store.num_documents(name),
        tokens=store.num_tokens(name),
        bytes=store.num_bytes(name),
        shards=of("train"),
        held_out=of("held_out"),
    )


def _doubts(weights: DomainWeights, store: TokenStore) -> list[str]:
    unnamed = [name for name in store.names if name not in weights]
    doubts = [f"without a weight, so never drawn: {', '.join(map(repr, unnamed))}"] if unnamed else []
    if store.packing == "pad":
        doubts.append(
            "the corpus pads documents to whole sequences: a weight is then a share of padded sequences, taken here as "
            "a share of tokens; domains of short documents get more tokens than in training with doremi"
        )
    return doubts
