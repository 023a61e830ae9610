"""What `results.json` says of how an arm's weights were found."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from doremi.evidence.parts import ByName, Count, Measured, Part, SeriesByName, check_lengths
from doremi.evidence.speed_up import Cost, ExplainedGain
from doremi.weights.alarm import Alarm


class Trajectory(Part):
    """A policy's run: its weights, their average so far and the excess loss by domain, at each of ``steps``."""

    steps: list[Count]
    dro_weights: SeriesByName  # α_t
    average_weights: SeriesByName  # ᾱ_t
    excess_losses: SeriesByName  # λ_t

    @model_validator(mode="after")
    def _equally_long(self) -> Trajectory:
        for series in (self.dro_weights, self.average_weights, self.excess_losses):
            check_lengths(series, self.steps)
        return self


class Convergence(Part):
    """How far the weights moved, over how many domains they are spread, and how steady they are."""

    max_change: Measured = None  # of a weight, from the prior to the answer
    effective_num_domains: Measured = None
    status: str | None = None  # of the rounds
    changes: list[Measured] = Field(default_factory=list)  # largest change of a weight in each round
    spread: ByName | None = None  # standard deviation of each weight over the proxies' seeds


class StageCost(Part):
    """All models of one stage of a search, beside those that are arms."""

    train_seconds: Measured
    num_parameters: Count  # of one
    num_tokens: Count
    flops: Measured


class Floor(Part):
    """The domains that the answer all but dropped, and the summaries of every arm over the others."""

    domains: list[str]  # below a tenth of their prior
    summaries: dict[str, ByName]  # by arm and summary, means over seeds


class Explained(Part):
    """How much of the gain over the control a plain arm has as well: the control without the domains at the floor."""

    arm: str
    summaries: dict[str, ExplainedGain]


class Search(Part):
    """How the weights of one arm were found, as far as its method says so."""

    alarms: list[Alarm] = Field(default_factory=list)
    costs: dict[str, StageCost] = Field(default_factory=dict)  # by stage
    cost: Cost | None = None  # FLOPs of every stage, against training one model of the arm
    convergence: Convergence | None = None
    trajectory: Trajectory | None = None
    floor: Floor | None = None  # None: no domain is at the floor
    explained: Explained | None = None  # None: there is no such arm
    facts: dict[str, Any] = Field(default_factory=dict)  # of the method alone, under its own keys
