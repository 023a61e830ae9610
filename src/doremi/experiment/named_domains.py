"""The domains that a recipe names, against those of the corpus: one that is not there is found before tokenising."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from doremi.errors import InputError
from doremi.experiment.recipe import Recipe
from doremi.weights import DomainWeights, listed, nearest, specs
from doremi.weights.rules import check_epochs


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


def _weights(recipe: Recipe) -> Iterator[tuple[str, DomainWeights]]:
    """All weights that are given as they are, and not by rule, with what messages call them."""
    named: list[tuple[str, specs.WeightsSpec | None]] = [
        ("weights.reference", recipe.weights.reference),
        ("reweighting.prior", recipe.reweighting.prior),
        *(("weights.baselines", spec) for spec in recipe.weights.baselines),
    ]
    for key, spec in named:
        weights = None if spec is None else specs.given(spec)
        if weights is not None:
            yield (f"{key} ({spec})" if isinstance(spec, str) else key), weights
