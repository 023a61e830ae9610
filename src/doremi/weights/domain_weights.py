"""Domain weights: a named point on the probability simplex, its JSON, and the rules that give starting points."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from doremi import files
from doremi.errors import InputError

MAX_LISTED = 25  # names of domains in a message
LARGEST = 1e300  # above, a sum of weights may overflow


class DomainWeights(Mapping[str, float]):
    """Weights by domain name, summing to 1. Immutable; the order given is kept and means nothing.

    Args:
        weights: domain name to a finite number >= 0, not all zero. Normalised here, so published configurations
            that do not sum to 1 work unchanged.
        source: where the weights come from, named in errors.

    Raises:
        InputError: no domain, or a weight that is negative, NaN, infinite or not a number, or all are zero.
    """

    def __init__(self, weights: Mapping[str, float], *, source: str = "weights") -> None:
        if not weights:
            raise InputError(f"{source}: no domain has a weight; give at least one")
        for name, value in weights.items():
            _check_weight(name, value, source)
        total = math.fsum(weights.values())
        if total == 0:
            raise InputError(f"{source}: all weights are 0; at least one domain must have a positive weight")
        self._weights = {name: float(value) / total for name, value in weights.items()}

    def __getitem__(self, name: str) -> float:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __repr__(self) -> str:
        return f"DomainWeights({self._weights})"

    @property
    def names(self) -> tuple[str, ...]:
        """Domain names in the order given."""
        return tuple(self._weights)

    def over(self, names: Iterable[str]) -> dict[str, float]:
        """The weights of ``names``, in their order; a name without a weight gets 0."""
        return {name: self._weights.get(name, 0.0) for name in names}

    def as_array(self, names: Iterable[str]) -> np.ndarray:
        """float64[k] in the order of ``names``; a name without a weight gets 0."""
        return np.array([self._weights.get(name, 0.0) for name in names], dtype=np.float64)

    def restricted_to(self, available: Iterable[str], *, source: str = "weights") -> DomainWeights:
        """The same weights, after checking that every domain exists; those of weight 0 are dropped.

        Raises:
            InputError: a name is not in ``available``; the message lists what exists.
        """
        known = set(available)
        unknown = sorted(name for name in self._weights if name not in known)
        if unknown:
            raise InputError(
                f"{source}: no such domain in the corpus: {listed(unknown)}; it has {listed(sorted(known))}"
                f"{nearest(unknown, known)}"
            )
        return DomainWeights({name: w for name, w in self._weights.items() if w > 0}, source=source)

    @classmethod
    def from_json(cls, path: str | Path) -> DomainWeights:
        """Read a plain ``{name: weight}`` object, or upstream's ``{"train_domain_weights": {...}, ...}``.

        Raises:
            MissingFileError: there is no such file.
            InputError: it is not JSON, or not one of the two layouts, or the weights are not usable.
        """
        content = files.read_json(Path(path))
        if isinstance(content, dict) and "train_domain_weights" in content:
            content = content["train_domain_weights"]
        if not isinstance(content, dict):
            raise InputError(f'{path}: expected {{"name": weight, ...}} or {{"train_domain_weights": {{...}}}}')
        return cls(content, source=str(path))

    def to_json(
        self,
        path: str | Path,
        *,
        eval_weights: DomainWeights | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Write upstream's two keys (both these weights unless ``eval_weights`` is given) and ``provenance``."""
        content: dict[str, Any] = {
            "train_domain_weights": dict(self),
            "eval_domain_weights": dict(eval_weights if eval_weights is not None else self),
        }
        if provenance is not None:
            content["provenance"] = dict(provenance)
        files.write_json(Path(path), content)


def listed(names: Collection[str]) -> str:
    """The names for a message; of many the first few, and how many more there are."""
    shown = ", ".join(map(repr, [*names][:MAX_LISTED]))
    return shown if len(names) <= MAX_LISTED else f"{shown} and {len(names) - MAX_LISTED:,} more"


def nearest(unknown: Collection[str], known: Collection[str]) -> str:
    """A sentence on the names that were probably meant; empty where none is close."""
    by_lower = {name.casefold(): name for name in known}
    pairs = []
    for name in [*unknown][:MAX_LISTED]:
        close = difflib.get_close_matches(name.casefold(), by_lower, n=1)
        if close:
            pairs.append(f"{by_lower[close[0]]!r} for {name!r}")
    return f". Did you mean {', '.join(pairs)}?" if pairs else ""


def _check_weight(name: str, value: object, source: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise InputError(f"{source}: the weight of {name!r} is {value!r}; it must be a number >= 0")
    if not 0 <= value <= LARGEST:
        raise InputError(f"{source}: the weight of {name!r} is {value!s:.20}; it must be finite and >= 0")


def natural(token_counts: Mapping[str, int]) -> DomainWeights:
    """Each domain in proportion to its tokens: what sampling without any reweighting draws."""
    return DomainWeights(token_counts, source="natural weights")


def uniform(names: Iterable[str]) -> DomainWeights:
    """1/k for each of the k domains."""
    return DomainWeights(dict.fromkeys(names, 1.0), source="uniform weights")
