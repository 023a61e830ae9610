"""What training took, in seconds, tokens and FLOPs, from the markers of finished runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from doremi.config import RunName
from doremi.evaluation.perplexity import finite
from doremi.evidence.searches import StageCost
from doremi.experiment import finished, flops, ledger
from doremi.experiment.opening import Experiment
from doremi.methods.protocol import Run
from doremi.models import size as model_size
from doremi.models.size import ModelSize


def run_flops(experiment: Experiment, run: Run) -> float:
    """FLOPs of one finished run, by the passes that it recorded; NaN: not known."""
    facts = finished.facts(ledger.training_run(experiment, run).folder)
    length = experiment.recipe.training.for_run(run.size).sequence_length
    size, reference = _size(experiment, run.size), _size(experiment, "reference")
    return flops.flops(facts["passes"], size, reference, sequence_length=length)


def search_flops(experiment: Experiment, runs: Sequence[Run]) -> dict[str, float]:
    """FLOPs of finding weights by stage, of all runs that a method asked for: without them there are none.

    A run that several methods asked for is counted for each of them. NaN: not known.
    """
    return {stage: sum(run_flops(experiment, run) for run in of_stage) for stage, of_stage in _by_stage(runs).items()}


def search_costs(experiment: Experiment, runs: Sequence[Run], arms: Collection[Path]) -> dict[str, StageCost]:
    """What finding weights took by stage, beside the runs that are compared.

    Args:
        experiment: with finished searches.
        runs: that a method asked for.
        arms: folders of the models that are compared.
    """
    others = [run for run in runs if ledger.training_run(experiment, run).folder not in arms]
    return {stage: _cost(experiment, of_stage) for stage, of_stage in _by_stage(others).items()}


def _by_stage(runs: Sequence[Run]) -> Mapping[str, list[Run]]:
    """Runs by the head of their label: those that differ in round or seed alone are one stage."""
    stages: dict[str, list[Run]] = {}
    for run in runs:
        stages.setdefault((run.label or run.size).partition(",")[0], []).append(run)
    return stages


def _cost(experiment: Experiment, runs: Sequence[Run]) -> StageCost:
    facts = [finished.facts(ledger.training_run(experiment, run).folder) for run in runs]
    return StageCost(
        train_seconds=round(sum(each["train_seconds"] for each in facts), 3),
        num_parameters=facts[0]["num_parameters"],
        num_tokens=sum(each["num_tokens"] for each in facts),
        flops=finite(sum(run_flops(experiment, run) for run in runs)),
    )


def _size(experiment: Experiment, model: RunName) -> ModelSize:
    recipe = experiment.recipe
    return model_size.measure(
        getattr(recipe.models, model),
        name=model,
        sequence_length=recipe.training.for_run(model).sequence_length,
        vocab_size=experiment.store.vocab_size,
    )
