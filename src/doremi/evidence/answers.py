"""The schema of `search.json`: what methods answered, and how they got there. `results.json` has all of it and more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from doremi.evidence.parts import Count, Part, Weight
from doremi.evidence.searches import Search
from doremi.weights.alarm import Alarm

FORMAT = 2


class Domain(Part):
    """What may be trained on."""

    tokens: Count
    prior: Weight  # the weight that the reference-weighted mean counts it by


class Answer(Part):
    """How much of each domain, as one method says."""

    method: str
    weights: dict[str, Weight] | None  # None: a policy that moves them while the model trains


class Answers(Part):
    """All of `search.json`: answers on which no model is trained yet, by label."""

    format: Literal[2]
    domains: dict[str, Domain]
    arms: Mapping[str, Answer]
    control: str  # the arm that all others are compared with
    searches: dict[str, Search] = Field(default_factory=dict)  # by arm
    alarms: list[Alarm] = Field(default_factory=list)  # of no one search: methods whose models failed
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _searches_for_its_own_arms(self) -> Answers:
        check_arms(self.arms, [("control", self.control), *(("searches", label) for label in self.searches)])
        return self

    @property
    def lead(self) -> str:
        """The arm that is looked at most closely: the first search; the control itself where nothing was searched."""
        return next(iter(self.searches), self.control)

    @property
    def arm_names(self) -> list[str]:
        """The control first, then the others in the order of the file."""
        return [self.control, *(name for name in self.arms if name != self.control)]

    def led_by(self, label: str) -> Answers:
        """The same with one search alone, which is therefore the lead."""
        return self.model_copy(update={"searches": {label: self.searches[label]}})


def check_arms(arms: Collection[str], named: Iterable[tuple[str, str]]) -> None:
    """Every arm that is named somewhere is there.

    Args:
        arms: those that there are.
        named: place and arm.

    Raises:
        ValueError: names the first place and arm that is not.
    """
    for place, arm in named:
        if arm not in arms:
            raise ValueError(f"{place}: {arm!a} is no arm; there are {list(arms)}")
