"""What is compared: each answer, with the models that are trained on it to verify it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from doremi.errors import InputError
from doremi.experiment import ledger
from doremi.experiment.opening import Experiment
from doremi.experiment.recipe import Recipe
from doremi.experiment.runs import TrainingRun
from doremi.experiment.search import Answers
from doremi.methods import imagined
from doremi.methods.fixed import Fixed
from doremi.methods.protocol import Answer, Run
from doremi.weights import DomainWeights

ROUNDING = 1e-9  # of a weight


@dataclass(frozen=True)
class Arm:
    """One answer, and a model trained on it with every seed."""

    label: str
    method: str
    answer: Answer
    asked: dict[int, Run]  # by seed, the recipe's first
    runs: dict[int, TrainingRun]  # the same as they are trained
    is_rule: bool  # simple: nothing was trained to find it
    same_as: str | None  # the earlier arm whose models these are

    @property
    def weights(self) -> DomainWeights:
        """What its models are trained on, or begin with."""
        return self.answer.weights


def arms(experiment: Experiment, answers: Answers) -> list[Arm]:
    """An arm for each method of the recipe, in its order; answers that agree share their models."""
    made: list[Arm] = []
    for item in experiment.recipe.named_methods:
        answer = answers[item.label]
        same = next((arm for arm in made if arm.same_as is None and train_the_same(arm.answer, answer)), None)
        runs_asked = same.asked if same else asked(experiment.recipe, item.label, answer)
        runs = same.runs if same else {seed: ledger.training_run(experiment, run) for seed, run in runs_asked.items()}
        is_rule = isinstance(item.method, Fixed)
        made.append(Arm(item.label, item.name, answer, runs_asked, runs, is_rule, same.label if same else None))
    return made


def train_the_same(one: Answer, other: Answer) -> bool:
    """Whether models trained on two answers are equal, but for rounding of the weights."""
    first, second = one.weights, other.weights
    alike = first.keys() == second.keys() and all(abs(first[name] - second[name]) < ROUNDING for name in first)
    return alike and one.policy == other.policy


def asked(recipe: Recipe, label: str, answer: Answer) -> dict[int, Run]:
    """The models that verify an answer, by seed."""
    verify, first = recipe.verify, recipe.seed
    return {
        seed: Run(
            verify.size,
            seed,
            answer.weights,
            policy=answer.policy,
            label=label if seed == first else f"{label}, seed {seed}",
        )
        for seed in range(first, first + verify.seeds)
    }


def find_runs(experiment: Experiment, name: str, known: Answers | None = None) -> list[Run]:
    """The runs of ``doremi train --run NAME``: the first of a size that the methods ask for, or those of an arm.

    Args:
        experiment: its methods and models.
        name: ``reference``, ``proxy``, or the label of a method.
        known: the answers, where all are known; an arm whose method asks for nothing needs none.

    Raises:
        InputError: there is no such run, or its weights are not known yet.
    """
    methods = {item.label: item for item in experiment.recipe.named_methods}
    if name in methods:
        answer = known[name] if known else _answer_without_search(experiment, name)
        return [*asked(experiment.recipe, name, answer).values()]
    wanted = [run for item in methods.values() for run in imagined.asked(item.method, experiment.bench)]
    of_size = [run for run in wanted if run.size == name]
    if not of_size:
        sizes = dict.fromkeys(run.size for run in wanted)
        raise InputError(f"no run {name!r}; there are {', '.join([*sizes, *methods])}")
    label = of_size[0].label.partition(",")[0]
    first_round = [run for run in of_size if run.reference == of_size[0].reference and run.label.startswith(label)]
    return _distinct(first_round if of_size[0].reference is not None else [of_size[0]])


def _answer_without_search(experiment: Experiment, label: str) -> Answer:
    method = next(item.method for item in experiment.recipe.named_methods if item.label == label)
    if method.ask(experiment.bench, []):
        raise InputError(f"{label}: its weights are not known yet; run `doremi search` first")
    return method.answer(experiment.bench, [])


def _distinct(runs: Iterable[Run]) -> list[Run]:
    distinct: list[Run] = []
    for run in runs:
        if run not in distinct:
            distinct.append(run)
    return distinct
