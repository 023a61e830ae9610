"""The domains that a recipe names, against those of the corpus: one that is not there is found before tokenising."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from doremi.errors import InputError
from doremi.evidence import targets
from doremi.experiment.recipe import Recipe
from doremi.methods.fixed import Fixed
from doremi.weights import listed, nearest, specs
from doremi.weights.rules import check_epochs


def check(recipe: Recipe, known: Collection[str]) -> None:
    """Refuse domains that the corpus has not. Those that it has may still be left out by ``prior``.

    Raises:
        InputError: names the key, the unknown domains, those there are and the nearest ones.
        MissingFileError: a weights file is not there.
    """
    for key, spec in named_weights(recipe).items():
        weights = specs.given(spec, source=key)
        if weights is not None:
            weights.restricted_to(known, source=f"{key} ({spec})" if isinstance(spec, str) else key)
    check_epochs(recipe.epochs, known)
    targets.check(recipe.target, [*known, *(item.name for item in recipe.evaluation.sets)])
    for key, bounds in bounds_by_domain(recipe).items():
        if unknown := sorted(set(bounds) - set(known)):
            raise InputError(
                f"{key}: no such domain: {listed(unknown)}; there are {listed(sorted(known))}{nearest(unknown, known)}"
            )


def named_weights(recipe: Recipe) -> dict[str, specs.WeightsSpec]:
    """All weights that a recipe names, rules as well, by the key that names them."""
    found: dict[str, specs.WeightsSpec] = {"prior": recipe.prior}
    for position, item in enumerate(recipe.named_methods):
        if isinstance(item.method, Fixed):
            found[f"methods.{position}"] = item.method.spec
    for position, method in enumerate(recipe.doremi_methods()):
        if method.prior is not None:
            found[f"doremi.prior{f' ({position + 1})' if position else ''}"] = method.prior
    return found


def bounds_by_domain(recipe: Recipe) -> dict[str, Mapping[str, float]]:
    """Bounds by domain, by their key."""
    return {
        f"doremi.{key}": bounds
        for method in recipe.doremi_methods()
        for key in ("min_weight", "max_weight")
        if isinstance(bounds := getattr(method, key), Mapping)
    }
