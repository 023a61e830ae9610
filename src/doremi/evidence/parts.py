"""What all parts of `results.json` are made of: numbers that are numbers, finite or null."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict

Count = Annotated[int, Strict()]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Measured = Number | None  # None: could not be measured, or is not known
Weight = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] | None  # None: it moves
ByName = dict[str, Measured]
SeriesByName = dict[str, list[Measured]]


class Part(BaseModel):
    """Numbers are numbers and texts are texts: nothing is converted. Unknown keys are ignored."""

    model_config = ConfigDict(frozen=True)


def check_lengths(series: SeriesByName, steps: list[int]) -> None:
    """Every series has one value for each step.

    Raises:
        ValueError: names the first one that has not.
    """
    for name, values in series.items():
        if len(values) != len(steps):
            raise ValueError(f"{name!a} has {len(values)} values for {len(steps)} steps")
