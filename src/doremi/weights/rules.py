"""Rules that give domain weights without training anything: what DoReMi starts from and is compared with.

Each takes sizes by domain and returns `DomainWeights` in the same order. `doremi.weights` has the two simplest.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from doremi.errors import InputError
from doremi.weights import DomainWeights, listed, nearest

FLOOR = 0.1  # of the reference weight: a domain below it has, for practical purposes, been dropped


def natural_with_epochs(sizes: Mapping[str, float], *, epochs: Mapping[str, float]) -> DomainWeights:
    """Size times the epochs that a corpus is meant to be seen for, w_i ∝ n_i · e_i, as the Pile does.

    Args:
        sizes: tokens, or sequences in whatever counting.
        epochs: by domain; a domain left out counts once.

    Raises:
        InputError: epochs of a domain that does not exist, or not above 0.
    """
    check_epochs(epochs, sizes)
    scaled = {name: size * epochs.get(name, 1.0) for name, size in sizes.items()}
    return DomainWeights(scaled, source="natural weights")


def check_epochs(epochs: Mapping[str, float], names: Collection[str], *, source: str = "epochs") -> dict[str, float]:
    """Epochs by domain as they are, once it is certain that they can be multiplied with.

    Raises:
        InputError: not a mapping, a domain that does not exist, or epochs that are not above 0.
    """
    if not isinstance(epochs, Mapping):
        raise InputError(f"{source}: expected {{name: epochs}}, got {epochs!r:.60}")
    if unknown := sorted(set(epochs) - set(names)):
        raise InputError(
            f"epochs of {unknown[0]!r}: no such domain; there are {listed(names)}{nearest(unknown[:1], names)}"
        )
    for name, value in epochs.items():
        if isinstance(value, bool) or not (isinstance(value, int | float) and 0 < value < math.inf):
            raise InputError(f"epochs of {name!r} are {value!r}; they must be a number above 0")
    return dict(epochs)


def temperature(sizes: Mapping[str, float], *, temperature: float) -> DomainWeights:
    """w_i ∝ n_i^(1/τ): natural at τ = 1, towards uniform above, sharper below (Chung et al. 2023, Section 2).

    Raises:
        InputError: τ is not above 0.
    """
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}; it must be above 0 (1: natural, infinity: uniform)")
    largest = max(sizes.values(), default=1)
    scaled = {name: (size / largest) ** (1 / temperature) if size else 0.0 for name, size in sizes.items()}
    return DomainWeights(scaled, source="temperature weights")


def unimax(sizes: Mapping[str, float], *, budget: float, max_epochs: float) -> DomainWeights:
    """As uniform as a cap on epochs allows (UniMax: Chung et al. 2023, Algorithm 1).

    From the smallest domain to the largest, each gets an equal share of what is left of the budget, but at most
    ``max_epochs`` times its size. If the budget exceeds that of all domains, the weights are natural.

    Args:
        sizes: tokens of each domain.
        budget: tokens that will be trained on.
        max_epochs: the cap, N in the paper.

    Raises:
        InputError: a budget or a cap that is not above 0.
    """
    if not (budget > 0 and max_epochs > 0):
        raise InputError(f"unimax: the budget is {budget} tokens and the cap {max_epochs} epochs; both must be above 0")
    given: dict[str, float] = {}
    for place, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        share = (budget - math.fsum(given.values())) / (len(sizes) - place)
        given[name] = min(share, size * max_epochs)
    return DomainWeights({name: given[name] for name in sizes}, source="unimax weights")


def floor_domains(reference: Mapping[str, float], answer: Mapping[str, float]) -> tuple[str, ...]:
    """Domains that DoReMi sent to the floor: below a tenth of their reference weight."""
    return tuple(name for name, weight in reference.items() if answer.get(name, 0.0) < FLOOR * weight)


def reference_without_floor(reference: Mapping[str, float], answer: Mapping[str, float]) -> DomainWeights:
    """The reference weights without the domains that DoReMi sent to the floor, renormalised.

    The control that tells "dropping a bad domain helped" from "the other weights are better".
    """
    dropped = set(floor_domains(reference, answer))
    kept = {name: weight for name, weight in reference.items() if name not in dropped}
    return DomainWeights(kept, source="reference weights without the floor domains")
