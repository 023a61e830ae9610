"""The same mixture of text in the tokens of another tokenizer.

A weight is a share of tokens, so under a tokenizer that needs more tokens for code than ours the same text is a larger
share of code. Weights that were found with one tokenizer need not be the best ones for another: users of upstream saw
so. What can be kept is the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from doremi.exporters.mixture import Mixture, TokenizerFacts
from doremi.weights import DomainWeights

if TYPE_CHECKING:
    from doremi.corpus import TokenStore
    from doremi.corpus.config import Split
    from doremi.corpus.tokenizing.tokenizers import CorpusTokenizer

SAMPLE_TOKENS = 250_000  # of each domain are counted again: 22 domains take seconds
_TEXTS_PER_BATCH = 256


def retokenized(mixture: Mixture, ratios: Mapping[str, float], *, tokenizer: TokenizerFacts) -> Mixture:
    """Weights and tokens under another tokenizer: w_i' ∝ w_i · r_i and n_i' = n_i · r_i.

    Draws of documents and shares of bytes stay what they are: the text is the same.

    Args:
        mixture: in the tokens of the corpus.
        ratios: tokens of the other tokenizer for one of the corpus', by domain: r_i, which is the inverse ratio of
            their bytes per token.
        tokenizer: the other one.
    """
    weights = DomainWeights({domain.name: domain.weight * ratios[domain.name] for domain in mixture.domains})
    domains = tuple(
        replace(domain, weight=weights[domain.name], tokens=max(1, round(domain.tokens * ratios[domain.name])))
        for domain in mixture.domains
    )
    return replace(mixture, domains=domains, tokenizer=tokenizer).warn(
        "converted to another tokenizer so that the text is the same; the weights were found under tokenizer "
        f"{mixture.tokenizer.digest}, whose ids the files of the corpus hold"
    )


def count_again(
    store: TokenStore, target: CorpusTokenizer, names: Iterable[str], *, max_tokens: int = SAMPLE_TOKENS
) -> dict[str, float]:
    """Tokens of ``target`` for one token of the corpus, by domain, one EOS a document in both.

    Counted on held-out documents, a random sample of all files, up to ``max_tokens`` of a domain; on the first training
    documents where none are held out.

    Raises:
        MissingFileError: the corpus has no tokenizer beside it.
    """
    from doremi.corpus.tokenizing import tokenizers  # half a second, which every command would pay

    own = tokenizers.load(str(store.tokenizer_path))
    return {name: _ratio(store, own, target, name, max_tokens) for name in names}


def _ratio(store: TokenStore, own: CorpusTokenizer, target: CorpusTokenizer, name: str, max_tokens: int) -> float:
    split: Split = "held_out" if store.num_documents(name, split="held_out") else "train"
    before = after = 0
    for batch in _batches(_first(store.documents(name, split=split), max_tokens)):
        before += sum(map(len, batch)) + len(batch)
        after += len(target.encode([own.decode(ids) for ids in batch]).flat) + len(batch)
    return after / before


def _first(documents: Iterator[np.ndarray], max_tokens: int) -> Iterator[np.ndarray]:
    """The documents that begin within the first ``max_tokens``."""
    before = 0
    for ids in documents:
        if before >= max_tokens:
            return
        before += len(ids)
        yield ids


def _batches(documents: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    for ids in documents:
        batch.append(ids)
        if len(batch) == _TEXTS_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
