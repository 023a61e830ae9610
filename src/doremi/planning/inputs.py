"""What a plan is worked out from, and which runs are one and the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from doremi.config import RUNS, RunName
from doremi.corpus import TokenStore
from doremi.experiment import bench, ledger, unprepared
from doremi.experiment.opening import Experiment
from doremi.experiment.recipe import Recipe
from doremi.experiment.run_directory import RunDirectory
from doremi.experiment.runs import NUM_DIGITS
from doremi.methods.protocol import Bench, Outcome, Run, Scoring, content
from doremi.models.size import ModelSize
from doremi.training.config import TrainingConfig

COMPARING = ledger.COMPARING  # what policies see that takes a forward pass of a reference


@dataclass(frozen=True)
class Inputs:
    """What stages are worked out from."""

    recipe: Recipe
    sizes: Mapping[RunName, ModelSize]
    num_devices: int
    bench: Bench
    store: TokenStore | None  # once it is prepared
    find: Callable[[Run], Outcome | None]  # what a run left, once it is finished
    _found: dict[str, Outcome | None] = field(default_factory=dict, repr=False, compare=False)  # by key

    def known(self, run: Run) -> Outcome | None:
        """What a run left, looked up once."""
        key = self.key(run)
        if key not in self._found:
            self._found[key] = self.find(run)
        left = self._found[key]
        return None if left is None else replace(left, run=run)

    @cached_property
    def training(self) -> dict[RunName, TrainingConfig]:
        """The settings of a run of each size."""
        return {size: self.recipe.training.for_run(size) for size in RUNS}

    @cached_property
    def alike(self) -> dict[RunName, RunName]:
        """The first size that has the same model and settings as each."""
        models = self.recipe.models
        parts = {size: (getattr(models, size), self.training[size]) for size in RUNS}
        return {size: next(other for other in RUNS if parts[other] == parts[size]) for size in RUNS}

    def training_of(self, run: Run) -> TrainingConfig:
        """The settings of one run."""
        config = self.training[run.size]
        return config if run.steps is None else config.model_copy(update={"steps": run.steps})

    def reference_size(self, run: Run) -> RunName | None:
        """Size of the model whose losses the policy of a run needs; None: it needs none."""
        if run.policy is None or run.policy.sees not in COMPARING:
            return None
        return "reference" if run.reference is None else run.reference.size

    def key(self, run: Run) -> str:
        """Equal keys, equal models: what the digest of a run says before there is a corpus."""
        return json.dumps(
            {
                "size": self.alike[run.size],
                "seed": run.seed,
                "weights": {name: f"{weight:.{NUM_DIGITS}g}" for name, weight in run.weights.items()},
                "policy": content(run.policy),
                "reference": None if run.reference is None else self.key(run.reference),
                "steps": self.training_of(run).steps,
                "scoring": content(run.scoring or Scoring()),
                "keep": run.keep,
            },
            default=str,
        )


def make(
    recipe: Recipe, out: Path, *, sizes: Mapping[RunName, ModelSize], num_devices: int, store: TokenStore | None
) -> Inputs:
    """The inputs of a recipe whose run directory is or will be ``out``.

    Raises:
        InputError: the recipe does not fit the corpus.
    """
    if store is None:
        return Inputs(recipe, sizes, num_devices, unprepared.make(recipe), None, lambda run: None)
    experiment = Experiment(recipe, RunDirectory(out), store, bench.make(recipe, store, bench.set_sizes(store)))
    return Inputs(recipe, sizes, num_devices, experiment.bench, store, lambda run: ledger.outcome(experiment, run))
