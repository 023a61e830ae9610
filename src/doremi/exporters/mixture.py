"""What an exporter is given: each domain's weight with its sizes and files, and what the weights refer to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from doremi.errors import InputError
from doremi.weights import DomainWeights

Unit = Literal["tokens", "sequences", "documents", "bytes"]


@dataclass(frozen=True)
class Shard:
    """One ``.bin`` and ``.idx`` pair of a store."""

    prefix: str  # absolute path without the suffix
    tokens: int


@dataclass(frozen=True)
class Domain:
    """A domain that is drawn. Sizes are those of its training side."""

    name: str
    weight: float  # share of the training tokens, > 0
    documents: int
    tokens: int  # one EOS a document included
    bytes: int  # of UTF-8; 0 where it is not known
    shards: tuple[Shard, ...]  # none where the corpus is read in place from other files
    held_out: tuple[Shard, ...]


@dataclass(frozen=True)
class TokenizerFacts:
    """The tokenizer that tokens are counted with."""

    path: str
    digest: str
    vocab_size: int


@dataclass(frozen=True)
class Mixture:
    """Domains with weights that sum to 1, as shares of training tokens.

    Shares of tokens are shares of sequences too, where sequences have one length: documents are packed. A stack that
    draws whole documents, or counts bytes, needs other numbers for the same mixture: see `draws`. `from_corpus` makes
    one.
    """

    domains: tuple[Domain, ...]
    source: str  # where the weights come from
    corpus: str
    corpus_digest: str
    tokenizer: TokenizerFacts
    token_bytes: int  # of a stored token
    num_tokens: int | None = None  # that will be trained on, where it is known
    warnings: tuple[str, ...] = ()

    def draws(self, unit: Unit) -> dict[str, float]:
        """How often each domain must be drawn for its share of tokens to be its weight; sums to 1.

        With n_i tokens in m_i units, a draw brings n_i / m_i tokens in the mean, so p_i ∝ w_i · m_i / n_i.

        Raises:
            InputError: ``unit`` is "bytes" and those of a domain are not known.
        """
        if unit in ("tokens", "sequences"):
            return {domain.name: domain.weight for domain in self.domains}
        return dict(DomainWeights({domain.name: domain.weight * _per_token(domain, unit) for domain in self.domains}))

    def warn(self, *warnings: str) -> Mixture:
        """The same with more warnings."""
        return replace(self, warnings=(*self.warnings, *warnings))


def _per_token(domain: Domain, unit: Unit) -> float:
    if unit == "bytes" and not domain.bytes:
        raise InputError(f"domain {domain.name!r}: its bytes are not known (token ids without text); count documents")
    return (domain.documents if unit == "documents" else domain.bytes) / domain.tokens
