"""A bench by hand, and outcomes of runs that nobody trained."""

from __future__ import annotations

from collections.abc import Mapping

from doremi.methods.protocol import Bench
from doremi.weights import DomainWeights
from doremi.weights.specs import Setting

TOKENS = {"web": 40_000, "code": 20_000, "books": 1_000}
PRIOR = {"web": 0.5, "code": 0.3, "books": 0.2}


class Sizes:
    """A corpus by its sizes: rows of ten tokens."""

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self.tokens = tokens

    @property
    def names(self):
        return tuple(self.tokens)

    def num_tokens(self, name):
        return self.tokens[name]

    def num_sequences(self, name, sequence_length):
        return self.tokens[name] // 10

    def with_packing(self, packing):
        return self


def bench(*, tokens=None, prior=None, main_tokens=2_000, max_epochs=4.0, **settings) -> Bench:
    """Three domains, a main run of 2,000 tokens, batches of ten rows."""
    tokens = TOKENS if tokens is None else tokens
    names = tuple(tokens)
    weights = DomainWeights(prior or (PRIOR if names == tuple(PRIOR) else dict.fromkeys(names, 1)))
    steps = {"reference": 10, "proxy": 10, "main": 10} | dict(settings.pop("steps", {}))
    rows = {"reference": 10, "proxy": 10, "main": 10} | dict(settings.pop("rows", {}))
    setting = Setting(Sizes(tokens), sequence_length=20, num_tokens=main_tokens, max_epochs=max_epochs, epochs={})
    defaults = {
        "sets": names,
        "target": dict.fromkeys(names, 1 / len(names)),
        "seed": 0,
        "has_reference": False,
    }
    return Bench(
        names=names,
        tokens=tokens,
        prior=weights,
        main_tokens=main_tokens,
        steps=steps,
        rows=rows,
        setting=setting,
        **(defaults | settings),
    )
