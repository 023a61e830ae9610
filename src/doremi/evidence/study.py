"""What `build` makes `results.json` of: the arms and searches of an experiment, as they were trained and scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from doremi.evidence.curves import HeldOutCurve
from doremi.evidence.few_shot import FewShot
from doremi.evidence.paired_documents import DocumentLosses
from doremi.evidence.schema import EvaluationSet, Verify
from doremi.evidence.searches import Convergence, StageCost, Trajectory
from doremi.evidence.targets import SetSizes, Spec, Targets, parse
from doremi.weights.alarm import Alarm


@dataclass(frozen=True)
class TrainedArm:
    """The models of one answer, by seed. FLOPs are NaN where they are not known."""

    method: str
    weights: Mapping[str, float] | None  # None: a policy
    losses: Mapping[int, Mapping[str, DocumentLosses]]  # by evaluation set
    curves: Mapping[int, HeldOutCurve]
    steps: int
    num_parameters: int
    num_tokens: int  # of one model
    train_flops: float  # of one model
    train_seconds: Mapping[int, float]
    folders: Mapping[int, str]
    epochs: Mapping[str, float]  # of the first seed
    search_flops: float = 0.0
    same_as: str | None = None  # an arm before it with the same weights, whose models these are


@dataclass(frozen=True)
class FinishedSearch:
    """What the search for one arm's weights left."""

    flops: Mapping[str, float] = field(default_factory=dict)  # by stage, references included; NaN: not known
    costs: Mapping[str, StageCost] = field(default_factory=dict)  # by stage, of models that are no arm
    alarms: Sequence[Alarm] = ()
    convergence: Convergence | None = None
    trajectory: Trajectory | None = None
    floor: Sequence[str] = ()  # domains that the answer all but dropped
    plain_arm: str | None = None  # the control's weights without these, where that was trained
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """All that an experiment has measured. ``searches`` are by arm: an arm that has none is a rule."""

    arms: Mapping[str, TrainedArm]
    control: str
    target: Spec  # what is to be low
    prior: Mapping[str, float]  # of every domain
    tokens: Mapping[str, int]  # to train on, by domain
    sets: Mapping[str, EvaluationSet]
    verify: Verify
    searches: Mapping[str, FinishedSearch] = field(default_factory=dict)
    alarms: Sequence[Alarm] = ()  # that are of no one search
    tasks: FewShot | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def targets(self) -> Targets:
        """The chosen target and the three that stand beside it.

        Raises:
            InputError: see `targets.parse`.
        """
        per_token = {name: text.bytes / text.tokens if text.bytes else math.nan for name, text in self.sets.items()}
        others = tuple(name for name in self.sets if name not in self.prior)
        return Targets(self.prior, parse(self.target, prior=self.prior, sizes=SetSizes(per_token, others)), others)
