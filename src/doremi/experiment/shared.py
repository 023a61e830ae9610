"""What the runs of one experiment have in common, worked out once while its process lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from doremi.models.passed import PassedProbes

if TYPE_CHECKING:
    from doremi.corpus import TokenStore
    from doremi.evaluation.perplexity import HeldOutSet

MAX_HELD_OUT = 4  # sets of windows: sizes of models with sequences or caps of their own


@dataclass
class Shared:
    """Held-out windows, the tokenizer, and the kinds of models that passed their probes."""

    passed: PassedProbes = field(default_factory=PassedProbes)
    _held_out: dict[tuple[Any, ...], HeldOutSet] = field(default_factory=dict)  # oldest first
    _tokenizers: dict[str, Any] = field(default_factory=dict)  # the last one

    def held_out(self, store: TokenStore, names: Sequence[str], *, length: int, cap: int | None) -> HeldOutSet:
        """The windows of `doremi.evaluation.perplexity.collect`; ``cap`` is in tokens of a domain or set."""
        from doremi.evaluation import perplexity

        key = (store.digest, tuple(names), length, cap)
        if key not in self._held_out:
            found = perplexity.collect(store, names, sequence_length=length, max_tokens_per_domain=cap)
            self._held_out[key] = found
            if len(self._held_out) > MAX_HELD_OUT:
                del self._held_out[next(iter(self._held_out))]
        return self._held_out[key]

    def tokenizer(self, store: TokenStore) -> Any:
        """The corpus' tokenizer, as transformers loads it."""
        from transformers import AutoTokenizer

        key = f"{store.tokenizer_digest} {store.tokenizer_path}"
        if key not in self._tokenizers:
            self._tokenizers = {key: AutoTokenizer.from_pretrained(store.tokenizer_path)}
        return self._tokenizers[key]
