"""The search: methods ask for runs, the ledger trains them, the answers are written down."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from doremi import launch, redaction
from doremi.errors import InputError
from doremi.experiment import finished, ledger
from doremi.experiment.opening import Experiment
from doremi.methods.fixed import WITHOUT_FLOOR
from doremi.methods.named import Named
from doremi.methods.protocol import Answer, Outcome, Run
from doremi.weights import DomainWeights

logger = logging.getLogger(__name__)

Answers = Mapping[str, Answer]  # by label of the method


class Found(NamedTuple):
    """The answer of a method, and the runs that led to it."""

    answer: Answer
    done: list[Outcome]


def search(experiment: Experiment) -> dict[str, Found]:
    """Train what the methods of the recipe ask for; write ``answers/LABEL.json``, and ``weights.json``.

    The latter has the answer of the first method that searches; else the control's.

    Raises:
        InputError: see `ledger.train`.
        RunFailedError: a run that a method cannot do without failed.
    """
    trained: list[Outcome] = []
    found = {item.label: _find(experiment, item, trained) for item in experiment.recipe.named_methods}
    write(experiment, answers_of(found), recommended=next(iter(searched(experiment)), experiment.recipe.control))
    return found


def answers_of(found: Mapping[str, Found]) -> Answers:
    """The answers alone, by label."""
    return {label: each.answer for label, each in found.items()}


def write(experiment: Experiment, answers: Answers, *, recommended: str) -> None:
    """Write ``answers/LABEL.json``, and ``weights.json``: the recommended one, to train with."""
    for label, answer in answers.items():
        _write(experiment.directory.answer(label), answer.weights, _provenance(experiment, label, answer))
    answer = answers[recommended]
    _write(experiment.directory.weights, answer.weights, _provenance(experiment, recommended, answer))


def known(experiment: Experiment) -> dict[str, Found]:
    """The answers that follow from what is trained, by label.

    Raises:
        InputError: a run is missing that a method asks for.
    """
    return {item.label: _known(experiment, item) for item in experiment.recipe.named_methods}


def searched(experiment: Experiment) -> list[str]:
    """Labels of the methods that search for weights; the control that is a rule on another's answer is none of them."""
    return [
        item.label
        for item in experiment.recipe.named_methods
        if item.name != WITHOUT_FLOOR and item.method.ask(experiment.bench, [])
    ]


def _drive(experiment: Experiment, item: Named, leave: Callable[[Sequence[Run]], list[Outcome]]) -> Found:
    """Ask a method until it asks for nothing; ``leave`` gives what the runs that it asks for leave."""
    done: list[Outcome] = []
    while asked := item.method.ask(experiment.bench, done):
        done += leave(asked)
    return Found(item.method.answer(experiment.bench, done), done)


def _find(experiment: Experiment, item: Named, trained: list[Outcome]) -> Found:
    """The answer of a method; what is trained for it is added to ``trained``, which other methods may ask for too."""

    def leave(asked: Sequence[Run]) -> list[Outcome]:
        known = [outcome.run for outcome in trained]
        if missing := [run for run in asked if run not in known]:
            logger.info("%s: trains %s", item.label, "; ".join(run.label or run.size for run in missing))
            trained.extend(ledger.train(experiment, missing))
        return [next(outcome for outcome in trained if outcome.run == run) for run in asked]

    found = _drive(experiment, item, leave)
    for alarm in found.answer.alarms:
        logger.warning("%s: %s: %s. What to do: %s", item.label, alarm.name, alarm.finding, alarm.remedy)
    return found


def _known(experiment: Experiment, item: Named) -> Found:
    def leave(asked: Sequence[Run]) -> list[Outcome]:
        return [_left(experiment, item, run) for run in asked]

    return _drive(experiment, item, leave)


def _left(experiment: Experiment, item: Named, run: Run) -> Outcome:
    outcome = ledger.outcome(experiment, run)
    if outcome is None:
        raise InputError(
            f"{item.label}: {run.label or run.size} is not trained yet; run `doremi search` with the same recipe and "
            "--out first"
        )
    return outcome


def _provenance(experiment: Experiment, label: str, answer: Answer) -> dict[str, Any]:
    policy = None if answer.policy is None else type(answer.policy).__name__
    return {
        "label": label,
        **redaction.public(dict(answer.facts)),
        "policy": policy,
        "alarms": [asdict(alarm) for alarm in answer.alarms],
        "refers_to": "shares of token sequences under the corpus' tokenizer",
        "corpus_digest": experiment.store.digest,
        "tokenizer_digest": experiment.store.tokenizer_digest,
        "seed": experiment.recipe.seed,
    }


def _write(path: Path, answer: DomainWeights, provenance: Mapping[str, Any]) -> None:
    if launch.is_first():
        answer.to_json(path, provenance=dict(provenance) | finished.seal("weights", answer))
    launch.wait_for(lambda: _holds(path, answer), f"the weights in {path}")  # not for older ones that are still there


def _holds(path: Path, answer: DomainWeights) -> bool:
    return path.exists() and dict(DomainWeights.from_json(path)) == dict(DomainWeights(answer))
