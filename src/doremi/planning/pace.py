"""From FLOPs to hours: at a share of a named device's peak, or at what real steps took here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from doremi.errors import InputError
from doremi.planning.devices import Device
from doremi.planning.stages import Kind, Stage


class Pace(Protocol):
    """How long things take on all devices together."""

    def seconds(self, stage: Stage) -> float:
        """Of all the models of a stage, one after the other."""

    def seconds_for(self, flops: float) -> float:
        """Of work that was not planned as a stage."""

    def describe(self) -> str:
        """What the times rest on."""


@dataclass(frozen=True)
class AssumedPace:
    """A share of the peak (model FLOPs utilisation, Chowdhery et al. 2022, Appendix B), the same in all stages.

    Raises:
        InputError: the utilisation is not in (0, 1].
    """

    name: str
    device: Device
    utilisation: float
    num_devices: int

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise InputError(f"--mfu {self.utilisation:g}: it must be above 0 and at most 1; 0.3 to 0.5 is usual")

    def seconds(self, stage: Stage) -> float:
        """FLOPs over the peak that is used."""
        return self.seconds_for(stage.flops)

    def seconds_for(self, flops: float) -> float:
        """FLOPs over the peak that is used."""
        return flops / (self.device.peak_flops * self.utilisation * self.num_devices)

    def describe(self) -> str:
        """Device, peak and utilisation."""
        peak = self.device.peak_flops / 1e12
        return (
            f"{self.num_devices} × {self.name} at {self.utilisation:.0%} of {peak:,.0f} TFLOP/s ({self.device.source})"
        )


@dataclass(frozen=True)
class MeasuredPace:
    """Seconds a row that steps of each kind took on one device; several are taken to share the rows out ideally."""

    seconds_per_row: Mapping[Kind, float]  # the last: a run that verifies an answer
    flops_per_row: Mapping[Kind, float]  # of the same steps
    num_devices: int
    where: str

    def seconds(self, stage: Stage) -> float:
        """Rows of all the models at what one took."""
        return stage.num_models * stage.num_rows * self.seconds_per_row[stage.kind] / self.num_devices

    def seconds_for(self, flops: float) -> float:
        """At the FLOP/s that was reached by a run that verifies an answer."""
        *_, last = self.seconds_per_row
        return flops * self.seconds_per_row[last] / (self.flops_per_row[last] * self.num_devices)

    def describe(self) -> str:
        """Where, and what was reached."""
        rates = {
            kind.model: self.flops_per_row[kind] / seconds / 1e12 for kind, seconds in self.seconds_per_row.items()
        }
        reached = ", ".join(
            f"{run} {'not known' if math.isnan(rate) else f'{rate:.3g}'}" for run, rate in rates.items()
        )
        return f"{self.num_devices} × {self.where}, from steps timed there (TFLOP/s: {reached})"
