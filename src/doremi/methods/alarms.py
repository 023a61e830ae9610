"""How far domain weights can be trusted: alarms with figures and a remedy each, from numbers that a run leaves behind.

Each check gives one `Alarm` or none, however many domains it concerns: the worst are named, the others counted.
Limits are rules of thumb, chosen so that the paper's own weights (22 domains, largest weight 0.61, effective number
5.1) raise none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from doremi.weights.alarm import Alarm

MAX_LARGEST_WEIGHT = 0.75
MIN_EFFECTIVE_DOMAINS = 2.0
MAX_DRIFT = 0.1  # total variation
MIN_STARVATION_NATS = 0.1  # per token
MAX_NAMED = 5  # domains in one alarm


def effective_number(weights: Mapping[str, float]) -> float:
    """exp(entropy): k for uniform weights over k domains, 1 for a single one."""
    return math.exp(-math.fsum(weight * math.log(weight) for weight in weights.values() if weight > 0))


def total_variation(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Σ_i |p_i − q_i| / 2, in [0, 1]; a domain that one of them lacks has weight 0 there."""
    return math.fsum(abs(first.get(name, 0.0) - second.get(name, 0.0)) for name in {**first, **second}) / 2


def check_collapse(weights: Mapping[str, float]) -> Iterator[Alarm]:
    """Nearly all weight on one or two domains."""
    largest = max(weights, key=lambda name: weights[name])
    effective = effective_number(weights)
    if len(weights) > 2 and (weights[largest] > MAX_LARGEST_WEIGHT or effective < MIN_EFFECTIVE_DOMAINS):
        yield Alarm(
            "collapse",
            f"{weights[largest]:.2f} of the weight is on {largest!r}; the effective number of domains is "
            f"{effective:.1f} of {len(weights)}",
            "check that this domain's losses can fall at all (noise, another language, broken text), train the proxy "
            "longer or with a larger batch, lower doremi.step_size, or bound the weights",
        )


class LateWeights(NamedTuple):
    """The adversary's weights towards the end of its steps."""

    first_step: int
    last_step: int
    mean: np.ndarray  # of α over these steps, float64[k]


def last_quarter(average_weights: Mapping[int, np.ndarray]) -> LateWeights | None:
    """The mean of α over the last quarter of the steps, from ᾱ after some steps; None if too few are known.

    ᾱ_T T is the sum of all α, so that the mean after step t is (T ᾱ_T − t ᾱ_t) / (T − t). Where ᾱ is not known after
    exactly three quarters of the steps, t is the latest step before that, and the part somewhat longer than a quarter.
    """
    last = max(average_weights, default=0)
    before = [step for step in average_weights if step <= 0.75 * last]
    if not before:
        return None
    begin = max(before)
    mean = (last * average_weights[last] - begin * average_weights[begin]) / (last - begin)
    return LateWeights(begin + 1, last, mean)


def check_drift(names: Sequence[str], average_weights: Mapping[int, np.ndarray]) -> Iterator[Alarm]:
    """The adversary's weights of the last quarter differ from the average over all steps, which is the answer."""
    late = last_quarter(average_weights)
    if late is None:
        return
    whole = average_weights[late.last_step]
    differences = np.abs(late.mean - whole)
    distance = float(differences.sum() / 2)
    if distance > MAX_DRIFT:
        index = int(differences.argmax())
        yield Alarm(
            "drift",
            f"in steps {late.first_step} to {late.last_step} the weights differ from their average over all steps by "
            f"{distance:.2f} in total variation; most of all {names[index]!r}, {late.mean[index]:.3f} against "
            f"{whole[index]:.3f}",
            "the weights have not settled: train the proxy for more steps, or average over the tail only "
            "(doremi.tail_fraction)",
        )


def check_starvation(
    weights: Mapping[str, float],
    reference_weights: Mapping[str, float],
    *,
    reference_nats: Mapping[str, float],
    uniform_nats: Mapping[str, float],
) -> Iterator[Alarm]:
    """Domains that lost weight though the reference is poor at them: no excess shows where the reference is no better.

    Args:
        weights: DoReMi's.
        reference_weights: what the reference was trained on.
        reference_nats: held-out nats per token of the reference by domain.
        uniform_nats: the same of a model like the reference, trained on uniform weights.
    """
    gaps = {
        name: nats - uniform_nats[name]
        for name, nats in reference_nats.items()
        if weights.get(name, 0.0) < reference_weights.get(name, 0.0)
    }
    starved = {name: gap for name, gap in gaps.items() if gap > MIN_STARVATION_NATS}
    if starved:
        named = (
            f"{name!r} {gap:.2f} nats per token ({reference_weights[name]:.4f} to {weights.get(name, 0.0):.4f})"
            for name, gap in _worst(starved)
        )
        yield Alarm(
            "starvation",
            f"{len(starved)} of {len(reference_nats)} domains lost weight though the reference is worse at them than a "
            f"model trained on uniform weights: {_listed(named, among=starved)}",
            "a poor reference shows no excess: take uniform or UniMax weights as prior, iterate "
            "(doremi.rounds), or set a minimum for these domains (doremi.min_weight)",
        )


def check_repetition(epochs: Mapping[str, float], *, max_epochs: float) -> Iterator[Alarm]:
    """Domains that the main run would repeat beyond the limit."""
    repeated = {name: value for name, value in epochs.items() if value > max_epochs}
    if repeated:
        named = (f"{name!r} {value:.1f} times" for name, value in _worst(repeated))
        yield Alarm(
            "repetition",
            f"the main run would see {len(repeated)} of {len(epochs)} domains more than {max_epochs:g} times: "
            f"{_listed(named, among=repeated)}",
            "bound the weights (doremi.max_main_epochs), add data, train for fewer steps, or set "
            "training.on_max_epochs: renormalise",
        )


def check_batch(global_batch_size: int, num_domains: int) -> Iterator[Alarm]:
    """A proxy batch in which not every domain can appear."""
    if global_batch_size < num_domains:
        yield Alarm(
            "batch",
            f"the proxy's global batch has {global_batch_size} rows for {num_domains} domains, so that some are absent "
            "from each",
            f"raise training.global_batch_size to {num_domains} or more",
        )


def _worst(severity: Mapping[str, float]) -> list[tuple[str, float]]:
    """The few domains with the largest values."""
    return sorted(severity.items(), key=lambda item: -item[1])[:MAX_NAMED]


def _listed(named: Iterable[str], *, among: Collection[str]) -> str:
    rest = len(among) - MAX_NAMED
    return ", ".join([*named, *([f"and {rest} more"] if rest > 0 else [])])
