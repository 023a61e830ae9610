"""The parts of `results.json` that say how sure a difference is: what `doremi.evaluation` worked out, as read back."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Measured = Annotated[float, Field(allow_inf_nan=False)] | None
ByName = dict[str, Measured]  # of runs or of domains
SeriesByName = dict[str, list[Measured]]
Outcome = Literal["better", "worse", "no difference", "not measured"]

SUMMARIES = {  # the keys of every comparison, in the order in which they are shown
    "uniform_mean": "uniform mean",
    "reference_mean": "reference-weighted mean",
    "worst": "worst domain",
}
NO_METHOD = "none: "  # begins the method of a number without an interval; the reason follows


class Part(BaseModel):
    """Numbers are numbers and texts are texts: nothing is converted. Unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, strict=True)


class Estimate(Part):
    """A number with its 95 % interval; without one, ``method`` says why."""

    value: Measured
    low: Measured
    high: Measured
    p_value: Measured = None
    method: str

    @model_validator(mode="after")
    def _has_both_ends_or_none(self) -> Estimate:
        if (self.low is None) != (self.high is None) or (self.low is not None and self.value is None):
            raise ValueError(f"an interval needs a value and both ends, not {self.low} <= {self.value} <= {self.high}")
        return self

    @property
    def ends(self) -> tuple[float, float] | None:
        """Low and high; None without an interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def reason(self) -> str:
        """How the interval was made, or why there is none."""
        return self.method.removeprefix(NO_METHOD)


class Judged(Estimate):
    """A difference, nats per token, and what it amounts to."""

    holm_p_value: Measured = None
    outcome: Outcome


class Tally(Part):
    """On how many domains which outcome was found."""

    num_better: int
    num_no_difference: int
    num_worse: int
    num_not_measured: int
    num_domains: int


class Verdict(Part):
    """What may be said of one pair of weight vectors."""

    outcome: Outcome
    primary: str
    minimal_detectable_effect: Measured
    summaries_agree: bool
    sentence: str


class Differences(Part):
    """Tuned minus baseline in the three summaries and in every domain."""

    summaries: dict[str, Judged]
    domains: dict[str, Judged]
    tally: Tally

    @model_validator(mode="after")
    def _has_every_summary(self) -> Differences:
        if missing := [name for name in SUMMARIES if name not in self.summaries]:
            raise ValueError(f"no difference in {' and '.join(missing)}; there are {list(self.summaries)}")
        return self


class SpeedUp(Part):
    """How soon the tuned run is where the baseline ends."""

    num_seeds: int
    num_reached: int
    factor: Estimate
    steps_to_match: Estimate
    flops_to_match: Estimate
    factor_with_search: Estimate


class Comparison(Differences):
    """Two weight vectors: over seeds, and over the documents of the same models."""

    tuned: str
    baseline: str
    seeds: list[int]
    unpaired_seeds: list[int] = Field(default_factory=list)
    verdict: Verdict
    documents: Differences
    speed_up: SpeedUp


class ExplainedGain(Part):
    """The share of the gain that the control has as well; 1 is all of it."""

    share: Estimate


class TotalCost(Part):
    """FLOPs of finding the weights, by stage, and of training the main model once."""

    search: ByName
    main: Measured
    total: Measured
    search_over_main: Measured
