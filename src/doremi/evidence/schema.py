"""The schema of `results.json`, format 2: what the writer constructs and the report reads.

Everything is by label, set or domain; a list of values has one for each of an arm's ``seeds``. Keys that are not listed
are ignored, so a later writer may add to the file; a number that could not be measured is null. What has a default may
be missing: files written by hand are shown as far as they go.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from doremi.evidence.answers import Answer, Answers, check_arms
from doremi.evidence.comparing import Comparison
from doremi.evidence.curves import Curve
from doremi.evidence.few_shot import FewShot
from doremi.evidence.parts import ByName, Count, Measured, Number, Part
from doremi.evidence.targets import KEYS, LABELS, NATS, OWN


class EvaluationSet(Part):
    """Text that every arm is scored on: the held-out text of a domain, or text that is not trained on."""

    tokens: Count  # scored
    bytes: Count | None = None  # of the scored text; None: not known
    documents: Count | None = None
    trained_on: bool = True  # it is the held-out text of a domain


class Arm(Answer):
    """The models trained on one answer, a model for each seed."""

    seeds: list[Count]
    nats: dict[str, list[Measured]]  # by set, per target token
    search_flops: Measured = None  # of finding the weights, once
    train_flops: Measured = None  # of one model
    summaries: dict[str, list[Measured]] = Field(default_factory=dict)  # by key, the target among them
    worst_domain: str | None = None  # of the mean losses
    bits_per_byte: ByName = Field(default_factory=dict)  # by set, means over the seeds
    curve: Curve | None = None
    steps: Count
    num_parameters: Count
    num_tokens: Count  # that one model is trained on
    train_seconds: list[Measured] = Field(default_factory=list)
    epochs: ByName = Field(default_factory=dict)  # how often the first seed saw each domain's training text
    folders: list[str] = Field(default_factory=list)
    same_as: str | None = None  # the arm whose models these are: its weights are the same

    def mean_nats(self, name: str) -> Measured:
        """The loss on one set, a mean over the seeds; None where one of them is not known."""
        return mean(self.nats.get(name, []))

    def summary(self, key: str) -> Measured:
        """One summary, a mean over the seeds; None where one of them is not known."""
        return mean(self.summaries.get(key, []))

    @model_validator(mode="after")
    def _has_a_value_for_each_seed(self) -> Arm:
        for name, values in {**self.nats, **self.summaries}.items():
            if len(values) != len(self.seeds):
                raise ValueError(f"{name!a} has {len(values)} values for {len(self.seeds)} seeds")
        return self


class Recommendation(Part):
    """Which weights to take, and why, in a sentence."""

    arm: str
    weights: ByName | None
    reason: str


class Verify(Part):
    """What the arms are: which of the recipe's models, trained with how many seeds."""

    size: Literal["reference", "proxy", "main"]
    seeds: Count


class Results(Answers):
    """All of `results.json`. The comparison that the experiment is for is the first, if there is any."""

    target: Literal["uniform", "reference", "worst"] | dict[str, Number]  # the last: weights of sets
    unit: str = NATS  # of the target
    sets: dict[str, EvaluationSet]
    arms: dict[str, Arm]
    comparisons: list[Comparison] = Field(default_factory=list)
    verdict: str
    recommendation: Recommendation | None = None
    verify: Verify | None = None
    tasks: FewShot | None = None

    @model_validator(mode="after")
    def _refers_to_its_own_arms(self) -> Results:
        named = [(f"same_as of {label!a}", arm.same_as) for label, arm in self.arms.items() if arm.same_as is not None]
        named += [("comparisons", arm) for found in self.comparisons for arm in (found.tuned, found.baseline)]
        named += [("recommendation", self.recommendation.arm)] if self.recommendation else []
        check_arms(self.arms, named)
        return self

    @model_validator(mode="after")
    def _compares_its_own_domains(self) -> Results:
        for found in self.comparisons:
            for differences in (found, found.documents):
                if other := sorted(differences.domains.keys() ^ self.domains.keys()):
                    raise ValueError(f"the comparison of {found.tuned!r} has other domains than the file: {other[:3]}")
                if missing := [key for key in self.summary_labels if key not in differences.summaries]:
                    raise ValueError(f"no difference in {' and '.join(missing)}; there are {list(found.summaries)}")
        return self

    @property
    def headline(self) -> Comparison | None:
        """The comparison that the experiment is for: an arm of a search, if there is one, against the control."""
        return next((found for found in self.comparisons if found.baseline == self.control), None)

    @property
    def lead(self) -> str:
        """The arm of the headline; the control itself where nothing was compared."""
        return self.headline.tuned if self.headline else self.control

    @property
    def summary_labels(self) -> dict[str, str]:
        """The summaries by key, the target first."""
        if not isinstance(self.target, str):
            return {OWN: OWN if self.unit == NATS else f"{OWN} ({self.unit})"} | LABELS
        primary = KEYS[self.target]
        return {primary: LABELS[primary]} | LABELS


def mean(values: list[Measured]) -> Measured:
    """The mean; None where there is no value or one of them is not known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
