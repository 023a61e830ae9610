"""What methods may know of an experiment whose corpus is not prepared: for plans and job scripts.

Its domains are those that the recipe names, or two imagined ones; of text there is always enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from doremi.evidence.targets import SetSizes
from doremi.experiment import bench, named_domains
from doremi.experiment.recipe import Recipe
from doremi.methods.protocol import Bench
from doremi.weights import specs

AMPLE_TOKENS = 10**18
BYTES_PER_TOKEN = 4.0  # of any text, about


class ImaginedSizes:
    """Sizes by which every rule gives other weights than the others: none of them is taken for another.

    The first domain has a thousandth of what the main run reads, so that limits on epochs hold it back.
    """

    def __init__(self, names: Sequence[str], *, main_tokens: int) -> None:
        self.names = tuple(names)
        sizes = [max(main_tokens // 1000, 1), *((2 + place) * main_tokens for place in range(len(names) - 1))]
        self._tokens = dict(zip(names, sizes, strict=True))

    def num_tokens(self, name: str) -> int:
        """Imagined."""
        return self._tokens[name]

    def num_sequences(self, name: str, sequence_length: int) -> int:
        """At least one."""
        return self._tokens[name] // sequence_length + 1

    def with_packing(self, packing: Any) -> Self:
        """The same."""
        return self


def make(recipe: Recipe) -> Bench:
    """The bench of a recipe over the domains that it names.

    Raises:
        InputError: weights of the recipe that cannot be used.
    """
    names = [*named(recipe)]
    imagined = [f"domain {number}" for number in range(1, 3 - len(names))]
    sizes = ImaginedSizes(names + imagined, main_tokens=recipe.training.for_run("main").num_tokens)
    made = bench.make(recipe, sizes, _imagined_text(recipe, sizes.names))
    return replace(made, tokens=dict.fromkeys(made.names, AMPLE_TOKENS))


def _imagined_text(recipe: Recipe, names: Sequence[str]) -> SetSizes:
    sets = list(dict.fromkeys(item.name for item in recipe.evaluation.sets))
    return SetSizes(dict.fromkeys([*names, *sets], BYTES_PER_TOKEN), sets)


def named(recipe: Recipe) -> tuple[str, ...]:
    """The domains that a recipe names, those of its prior first.

    Raises:
        InputError: weights of the recipe that cannot be used.
    """
    given = [specs.given(spec, source=key) for key, spec in named_domains.named_weights(recipe).items()]
    sets = {item.name for item in recipe.evaluation.sets}
    target = [name for name in recipe.target if name not in sets] if isinstance(recipe.target, dict) else []
    mappings = [*filter(None, given), recipe.epochs, target, *named_domains.bounds_by_domain(recipe).values()]
    return tuple(dict.fromkeys(name for mapping in mappings for name in mapping))
