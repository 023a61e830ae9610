"""The target of an experiment, what is to be low, and the summaries that stand beside it. Pure functions of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from doremi.evidence.comparison import summarise
from doremi.evidence.parts import Number

# A mapping holds the weight of each evaluation set that counts
Target = Literal["uniform", "reference", "worst"] | Mapping[str, Number]

SUMMARIES = {"uniform_mean": "uniform mean", "reference_mean": "reference-weighted mean", "worst": "worst domain"}
KEYS = {"uniform": "uniform_mean", "reference": "reference_mean", "worst": "worst"}
WEIGHTED = "target"  # key and label of the mean over evaluation sets that a recipe weighs itself


def key_of(target: Target) -> str:
    """The summary that is to be low, on which the verdict rests."""
    return KEYS[target] if isinstance(target, str) else WEIGHTED


def labels(target: Target) -> dict[str, str]:
    """The summaries to show, by key: the target first, then the others of uniform, reference and worst."""
    primary = key_of(target)
    return {primary: SUMMARIES.get(primary, WEIGHTED)} | SUMMARIES


def set_weights(target: Target) -> Mapping[str, float]:
    """The weights of evaluation sets in the target; empty for one of the three summaries over domains."""
    return {} if isinstance(target, str) else target


def values(nats: Mapping[str, float], prior: Mapping[str, float], target: Target = "uniform") -> dict[str, float]:
    """The summaries of one model, nats per token, in the order of `labels`.

    Args:
        nats: by evaluation set, the domains among them.
        prior: the reference weight of each domain. Sets that it lacks count in a target that weighs them, and
            nowhere else.
        target: what is to be low.
    """
    over_domains = summarise({name: loss for name, loss in nats.items() if name in prior}, prior)
    found = {key: getattr(over_domains, key) for key in SUMMARIES}
    weights = set_weights(target)
    if weights:
        found[WEIGHTED] = sum(weight * nats[name] for name, weight in weights.items()) / sum(weights.values())
    return {key: found[key] for key in labels(target)}
