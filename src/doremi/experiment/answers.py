"""``search.json``: what the methods of an experiment answered, and how they got there, without any main model."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doremi import __version__, redaction
from doremi.evidence.answers import FORMAT, Answer, Answers, Domain
from doremi.evidence.searches import Convergence, Floor, Search, Trajectory
from doremi.experiment import ledger
from doremi.experiment.costs import search_costs
from doremi.experiment.learning_curves import trajectory
from doremi.experiment.search import Found, searched
from doremi.methods import alarms
from doremi.weights import rules

if TYPE_CHECKING:
    from doremi.experiment.opening import Experiment


def collect_answers(experiment: Experiment, found: Mapping[str, Found]) -> Answers:
    """Put together what the methods of the recipe answered.

    Args:
        experiment: with all runs of the searches finished.
        found: the answers by label, with the runs that led to them. A run of several searches is a cost of the first.
    """
    names, counted, searches = experiment.names, set[Path](), {}
    for label in searched(experiment):
        searches[label] = _search(experiment, found[label], counted)
        counted |= {ledger.training_run(experiment, outcome.run).folder for outcome in found[label].done}
    return Answers(
        format=FORMAT,
        domains={
            name: Domain(tokens=experiment.store.num_tokens(name), prior=experiment.prior[name]) for name in names
        },
        arms={
            item.label: Answer(method=item.name, weights=_weights(experiment, found[item.label]))
            for item in experiment.recipe.named_methods
        },
        control=experiment.recipe.control,
        searches=searches,
        provenance=provenance(experiment),
    )


def _weights(experiment: Experiment, found: Found) -> dict[str, float] | None:
    return None if found.answer.policy else found.answer.weights.over(experiment.names)


def _search(experiment: Experiment, found: Found, counted: set[Path]) -> Search:
    answer, prior = found.answer, dict(experiment.prior)
    weights = answer.weights.over(experiment.names)
    at_floor = rules.floor_domains(prior, weights)
    return Search(
        alarms=list(answer.alarms),
        costs=search_costs(experiment, [outcome.run for outcome in found.done if not outcome.failure], counted),
        convergence=convergence(answer.facts, weights, prior),
        trajectory=policy_trajectory(experiment, found),
        floor=Floor(domains=at_floor, summaries={}) if at_floor else None,
    )


def policy_trajectory(experiment: Experiment, found: Found) -> Trajectory | None:
    """What the last policy of the search logged, with the first seed."""
    histories = [
        outcome.history
        for outcome in found.done
        if outcome.run.policy is not None and outcome.run.seed == experiment.recipe.seed
    ]
    return trajectory(histories[-1], experiment.names) if histories else None


def convergence(facts: Mapping[str, Any], answer: Mapping[str, float], prior: Mapping[str, float]) -> Convergence:
    """How far the weights moved from the prior, over all rounds, and how the rounds went, if there were any."""
    rounds = facts.get("rounds", {})
    return Convergence(
        max_change=max(abs(answer[name] - weight) for name, weight in prior.items()),
        effective_num_domains=alarms.effective_number(answer),
        status=rounds.get("status"),
        changes=rounds.get("changes", []),
        spread=facts.get("spread"),
    )


def provenance(experiment: Experiment) -> dict[str, Any]:
    """Versions, digests and the command, without secrets."""
    return {
        "doremi": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "transformers", "tokenizers", "numpy")},
        "corpus_digest": experiment.store.digest,
        "tokenizer_digest": experiment.store.tokenizer_digest,
        "recipe_digest": experiment.recipe.digest,
        "command": redaction.published(shlex.join(["doremi", *sys.argv[1:]])),
    }
