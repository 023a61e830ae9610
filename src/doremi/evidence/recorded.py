"""The parts of `results.json` that were recorded while models trained: one value for each of some steps."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from doremi.evidence.schema import Measured, Part, SeriesByName


class SummaryCurves(Part):
    """The three summaries while a run trained."""

    uniform_mean_nats: list[Measured]
    reference_mean_nats: list[Measured]
    worst_nats: list[Measured]


class Curves(SummaryCurves):
    """Held-out loss of one run while it trained, nats per token; every list is as long as ``steps``.

    Means over the seeds; ``by_seed`` holds the summaries of each of several.
    """

    steps: list[int]
    nats: SeriesByName
    by_seed: dict[str, SummaryCurves] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _equally_long(self) -> Curves:
        for curves in (self, *self.by_seed.values()):
            _check_lengths(self.steps, {key: getattr(curves, key) for key in SummaryCurves.model_fields})
        _check_lengths(self.steps, self.nats)
        return self


class Trajectory(Part):
    """The proxy run: α_t, ᾱ and λ of every domain; every list is as long as ``steps``."""

    steps: list[int]
    dro_weights: SeriesByName
    average_weights: SeriesByName
    excess_losses: SeriesByName

    @model_validator(mode="after")
    def _equally_long(self) -> Trajectory:
        for series in (self.dro_weights, self.average_weights, self.excess_losses):
            _check_lengths(self.steps, series)
        return self


def _check_lengths(steps: list[int], series: Mapping[str, list[Measured]]) -> None:
    for name, values in series.items():
        if len(values) != len(steps):
            raise ValueError(f"{name!a} has {len(values)} values for {len(steps)} steps")
