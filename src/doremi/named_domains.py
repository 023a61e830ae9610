"""The domains that a recipe names, against those of the corpus: one that is not there is found before tokenising."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from doremi import weight_specs
from doremi.baselines import check_epochs
from doremi.errors import InputError
from doremi.recipe import Recipe
from doremi.weights import DomainWeights, listed, nearest


def check(recipe: Recipe, known: Collection[str]) -> None:
    """Refuse domains that the corpus has not. Those that it has may still be left out by ``weights.reference``.

    Raises:
        InputError: names the key, the unknown domains, those there are and the nearest ones.
        MissingFileError: a weights file is not there.
    """
    for source, weights in _weights(recipe):
        weights.restricted_to(known, source=source)
    check_epochs(recipe.weights.epochs, known)
    for key in ("min_weight", "max_weight"):
        bounds = getattr(recipe.reweighting, key)
        unknown = sorted(set(bounds) - set(known)) if isinstance(bounds, Mapping) else []
        if unknown:
            raise InputError(
                f"reweighting.{key}: no such domain: {listed(unknown)}; there are {listed(sorted(known))}"
                f"{nearest(unknown, known)}"
            )


def specs(recipe: Recipe) -> Iterator[tuple[str, weight_specs.WeightsSpec]]:
    """All weights of a recipe, with their keys."""
    yield weight_specs.REFERENCE, recipe.weights.reference
    if recipe.reweighting.prior is not None:
        yield "reweighting.prior", recipe.reweighting.prior
    for spec in recipe.weights.baselines:
        yield "weights.baselines", spec


def _weights(recipe: Recipe) -> Iterator[tuple[str, DomainWeights]]:
    """All weights that are given as they are, and not by rule, with what messages call them."""
    for key, spec in specs(recipe):
        weights = weight_specs.given(spec, key=key)
        if weights is not None:
            yield (f"{key} ({spec})" if isinstance(spec, str) else key), weights
