"""Held-out losses while a model trained, as recorded and as `results.json` holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from doremi.evidence.parts import Count, Part, SeriesByName, check_lengths
from doremi.evidence.targets import Targets


@dataclass(frozen=True)
class HeldOutCurve:
    """One model: nats per token by evaluation set; every list is as long as ``steps``."""

    steps: Sequence[int]
    nats: Mapping[str, Sequence[float]]


class Curve(Part):
    """One arm, means over its seeds: nats per token by evaluation set, and each target, at each of ``steps``.

    ``by_seed`` holds the summaries of each of several seeds.
    """

    steps: list[Count]
    nats: SeriesByName
    summaries: SeriesByName
    by_seed: dict[str, SeriesByName] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _equally_long(self) -> Curve:
        for series in (self.nats, self.summaries, *self.by_seed.values()):
            check_lengths(series, self.steps)
        return self


def summarised(curve: HeldOutCurve, targets: Targets) -> dict[str, list[float]]:
    """Each target at each point of one model's curve, by key."""
    points = [
        targets.values({name: losses[index] for name, losses in curve.nats.items()})
        for index in range(len(curve.steps))
    ]
    return {key: [point[key] for point in points] for key in targets.by_key()}


def mean_curve(by_seed: Mapping[int, HeldOutCurve], targets: Targets) -> Curve:
    """The mean over seeds, and the summaries of each of several."""
    found = {seed: summarised(curve, targets) for seed, curve in by_seed.items()}
    first = next(iter(by_seed.values()))
    return Curve(
        steps=list(first.steps),
        nats={name: _mean([curve.nats[name] for curve in by_seed.values()]) for name in first.nats},
        summaries={key: _mean([of_seed[key] for of_seed in found.values()]) for key in targets.by_key()},
        by_seed={str(seed): of_seed for seed, of_seed in found.items()} if len(found) > 1 else {},
    )


def _mean(series: Sequence[Sequence[float]]) -> list[float]:
    return np.mean(series, axis=0).tolist()
