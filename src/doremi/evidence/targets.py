"""What is to be low: one number over the losses of several evaluation sets. Pure functions of numbers.

An evaluation set is the held-out text of a domain, or text that is not trained on. DoReMi itself has no target: it is
minimax in excess loss by construction. A target says what its weights, and those of any other method, are judged by.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from doremi.errors import InputError, shown
from doremi.weights import listed, nearest

Rule = Literal["mean", "weighted", "worst"]
Spec = str | Mapping[str, float]  # of a recipe: uniform, reference, worst, or {set: weight}

NATS, BITS = "nats per token", "bits per byte"
KEYS = {"uniform": "uniform_mean", "reference": "reference_mean", "worst": "worst"}  # what results call them
LABELS = {"uniform_mean": "uniform mean", "reference_mean": "reference-weighted mean", "worst": "worst domain"}
OWN = "target"  # what results call {set: weight}


@dataclass(frozen=True)
class Target:
    """One number over sets, low where it is good.

    value = mean of y_s, Σ w_s y_s / Σ w_s, or max of y_s, with y_s the loss of set s: nats per token, or those times
    ``scales[s]``, which makes them bits per byte.
    """

    key: str  # how results call it
    label: str  # how people call it
    rule: Rule
    weights: Mapping[str, float]  # by set, as given; a mean and a maximum have 1 everywhere
    scales: Mapping[str, float] = field(default_factory=dict)  # empty: none
    unit: str = NATS

    def value(self, nats: Mapping[str, float]) -> float:
        """The target of losses in nats per token, by set; further sets do not matter.

        Raises:
            InputError: a set has no loss.
        """
        names = self._names(nats)
        values = np.array([nats[name] * self.scales.get(name, 1.0) for name in names])
        weights = np.array([self.weights[name] for name in names])
        if self.rule == "weighted":
            return float(values @ weights / weights.sum())
        return float(values.mean() if self.rule == "mean" else values.max())

    def worst_set(self, nats: Mapping[str, float]) -> str:
        """The set with the highest loss in the target's unit, the first of equal ones."""
        return max(self._names(nats), key=lambda name: nats[name] * self.scales.get(name, 1.0))

    def on_nats(self) -> dict[str, float] | Literal["worst"]:
        """What to solve for: c with value = Σ c_s · nats_s, or "worst", which is over all domains."""
        if self.rule == "worst":
            return "worst"
        total = math.fsum(self.weights.values())
        return {name: weight / total * self.scales.get(name, 1.0) for name, weight in self.weights.items()}

    def __str__(self) -> str:
        if self.key != OWN:
            return f"{self.label} ({self.unit})"
        total = math.fsum(self.weights.values())
        parts = (f"{weight / total:.3g} x {name}" for name, weight in self.weights.items())
        return f"{' + '.join(parts)} ({self.unit})"

    def _names(self, nats: Mapping[str, float]) -> list[str]:
        """Its sets, in the order of the losses: sums do not depend on how a recipe orders a mapping."""
        if lacking := [name for name in self.weights if name not in nats]:
            raise InputError(f"{self.label}: no loss of {listed(lacking)}; evaluate the model on it, or leave it out")
        return [name for name in nats if name in self.weights]


def standard(prior: Mapping[str, float]) -> dict[str, Target]:
    """The three that stand beside any other, by key. One alone misleads: they often disagree.

    Args:
        prior: the reference weights of every domain; renormalised.
    """
    alike = dict.fromkeys(prior, 1.0)
    kinds: dict[str, tuple[Rule, Mapping[str, float]]] = {
        "uniform_mean": ("mean", alike),
        "reference_mean": ("weighted", prior),
        "worst": ("worst", alike),
    }
    return {key: Target(key, LABELS[key], rule, weights) for key, (rule, weights) in kinds.items()}


class SetSizes(NamedTuple):
    """What a target has to know of the sets there are, in their order: domains first."""

    bytes_per_token: Mapping[str, float]  # of every domain and set; NaN where it is not known
    sets: Collection[str] = ()  # those that belong to no domain


def parse(spec: Spec, *, prior: Mapping[str, float], sizes: SetSizes) -> Target:
    """The target of a recipe.

    {set: weight} is in bits per byte where it weighs several sets of which one at least belongs to no domain: tokens of
    such texts are of different length, and a mean per token would weigh them by how well the tokenizer fits them. A
    single set, and domains among themselves as in the three others, are in nats per token.

    Args:
        spec: uniform, reference, worst, or {set: weight}; weights are renormalised.
        prior: the reference weights of every domain.
        sizes: of the sets that are evaluated.

    Raises:
        InputError: what `check` refuses, or bits per byte of a set whose bytes are not known.
    """
    check(spec, [*prior, *sizes.sets])
    if isinstance(spec, str):
        return standard(prior)[KEYS[spec]]
    weights = {name: float(weight) for name, weight in spec.items()}
    if len(weights) == 1 or not any(name in sizes.sets for name in weights):
        return Target(OWN, OWN, "weighted", weights)
    scales = {name: 1 / (math.log(2) * sizes.bytes_per_token[name]) for name in weights}
    if unknown := [name for name, scale in scales.items() if not math.isfinite(scale)]:
        raise InputError(
            f"target: how many bytes {listed(unknown)} has is not known, so there are no bits per byte to weigh; "
            "prepare it from text, or name a single set"
        )
    return Target(OWN, OWN, "weighted", weights, scales, BITS)


def check(spec: Spec, known: Iterable[str]) -> None:
    """Refuse what is no target, as early as the names of domains and sets are known.

    Raises:
        InputError: neither a rule nor {set: weight}, a set that is not there, or a weight that is not above 0.
    """
    known = list(known)
    if isinstance(spec, str):
        if spec not in KEYS:
            hint = f"; for one set, write {{{spec}: 1}}" if spec in known else nearest([spec], KEYS)
            raise InputError(f"target: {shown(spec)} is none of {', '.join(KEYS)}, and no {{set: weight}}{hint}")
        return
    if not spec:
        raise InputError(f"target: no set in it; give {{set: weight}} over {listed(known)}, or {', '.join(KEYS)}")
    if unknown := [name for name in spec if name not in known]:
        raise InputError(f"target: no such set: {listed(unknown)}; there are {listed(known)}{nearest(unknown, known)}")
    for name, weight in spec.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 < weight < math.inf:
            raise InputError(f"target: the weight of {name!r} is {shown(weight)}; give a number above 0, or drop it")


@dataclass(frozen=True)
class Targets:
    """What models are compared in: the chosen target, on which verdicts rest, and the three that stand beside it.

    Args:
        prior: the reference weights of every domain.
        chosen: what the recipe wants low; None: the uniform mean over domains, the paper's.
        sets: the evaluation sets that belong to no domain; the three others leave them out.
    """

    prior: Mapping[str, float]
    chosen: Target | None = None
    sets: Collection[str] = ()

    @property
    def primary(self) -> str:
        """The key of the chosen one."""
        return self.chosen.key if self.chosen is not None else KEYS["uniform"]

    def by_key(self) -> dict[str, Target]:
        """All of them: the three first, as always."""
        found = standard(self.prior)
        return found | ({self.chosen.key: self.chosen} if self.chosen is not None else {})

    def values(self, nats: Mapping[str, float]) -> dict[str, float]:
        """Each target of one model, by key; ``nats`` per token by domain and set."""
        return {key: target.value(nats) for key, target in self.by_key().items()}

    def over(self, domains: Iterable[str]) -> Targets:
        """The same over some of the domains: means are renormalised; {set: weight} stays what it is."""
        prior = {name: self.prior[name] for name in domains}
        chosen = self.chosen
        if chosen is not None and chosen.key != OWN:
            chosen = standard(prior)[chosen.key]
        return Targets(prior, chosen, self.sets)
