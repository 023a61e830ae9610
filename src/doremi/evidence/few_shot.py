"""Few-shot tasks in `results.json`. Higher scores are better, mostly."""

from __future__ import annotations

from pydantic import Field, model_validator

from doremi.evidence.parts import Count, Measured, Part
from doremi.evidence.statistics import Estimate


class SeedScore(Part):
    """One model in one task."""

    value: Measured
    standard_error: Measured = None  # over documents


class ArmScore(Part):
    """One arm in one task: the mean over its seeds."""

    value: Measured
    by_seed: dict[str, SeedScore] = Field(default_factory=dict)


class Task(Part):
    """What all arms were asked, and how they answered."""

    metric: str
    num_documents: Count
    num_fewshot: Count
    num_truncated: Count = 0  # prompts that were too long for the models and lost their beginning
    higher_is_better: bool = True
    version: str | None = None
    arms: dict[str, ArmScore]


class AverageOfSeed(Part):
    """One model's mean over tasks."""

    value: Measured
    standard_error: Measured = None  # over documents
    tasks: list[str]


class AverageScore(Part):
    """One arm's mean over its seeds and over the tasks whose scores can be averaged."""

    value: Measured
    tasks: list[str]
    by_seed: dict[str, AverageOfSeed] = Field(default_factory=dict)


class TaskDifferences(Part):
    """Tuned minus baseline in every task, over documents, and in their average."""

    tuned: str
    baseline: str
    tasks: dict[str, Estimate]
    average: Estimate
    average_over_documents: Estimate | None = None

    @property
    def shown_average(self) -> Estimate:
        """Over seeds where there are enough, else over documents."""
        return self.average if self.average.low is not None else self.average_over_documents or self.average


class TaskCurve(Part):
    """The average score while one arm trained."""

    steps: list[Count]
    average: list[Measured]

    @model_validator(mode="after")
    def _equally_long(self) -> TaskCurve:
        if len(self.steps) != len(self.average):
            raise ValueError(f"{len(self.average)} averages for {len(self.steps)} steps")
        return self


class FewShot(Part):
    """All of ``tasks``."""

    num_fewshot: Count | None = None
    limit: Count | None = None
    tasks: dict[str, Task]
    average: dict[str, AverageScore] = Field(default_factory=dict)
    comparisons: list[TaskDifferences] = Field(default_factory=list)
    curves: dict[str, TaskCurve] = Field(default_factory=dict)
