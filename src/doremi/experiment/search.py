"""From trained proxies to ``weights.json``: rounds, seeds, what can be said about how far to trust them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from doremi import launch, redaction
from doremi.experiment import finished, planned_runs, runs
from doremi.experiment.opening import Experiment
from doremi.experiment.runs import TrainingRun
from doremi.methods import alarms as checks
from doremi.methods import rounds
from doremi.methods.alarms import Alarm
from doremi.methods.doremi_config import ReweightingConfig
from doremi.methods.group_dro import GroupDROState
from doremi.methods.rounds import Progress
from doremi.weights import DomainWeights

logger = logging.getLogger(__name__)


class Round(NamedTuple):
    """What one round gave."""

    weights: DomainWeights  # the mean over its proxies
    by_seed: dict[int, DomainWeights]


def find_weights(experiment: Experiment) -> DomainWeights:
    """Steps 1 and 2, as often as the recipe says; writes ``weights.json``, the answer."""
    found: list[Round] = []
    while True:
        number, reference_weights = len(found) + 1, (found[-1].weights if found else experiment.reference_weights)
        _log_begin(experiment.recipe.reweighting, number)
        if experiment.recipe.models.reference.init != "trained":
            runs.train(planned_runs.reference_run(experiment, number, reference_weights), experiment.store)
        found.append(_train_round(experiment, number))
        progress = judge(experiment, [item.weights for item in found])
        _log_progress(progress, number)
        if progress.is_over:
            break
    alarms = list(check(experiment, len(found), found[-1].weights))
    for alarm in alarms:
        logger.warning("%s: %s. What to do: %s", alarm.name, alarm.finding, alarm.remedy)
    weights = found[-1].weights
    provenance = _provenance(experiment, found, progress, alarms) | finished.seal(weights)
    _write(experiment.directory.weights, weights, provenance)
    return weights


def judge(experiment: Experiment, answers: Sequence[DomainWeights]) -> Progress:
    """How the rounds so far went, by the recipe's tolerance and number of rounds."""
    reweighting = experiment.recipe.reweighting
    return rounds.judge(
        [experiment.reference_weights, *answers],
        tolerance=reweighting.tolerance,
        max_rounds=reweighting.max_rounds if reweighting.rounds == "auto" else reweighting.rounds,
        stop_early=reweighting.rounds == "auto",
    )


def check(experiment: Experiment, number: int, answer: Mapping[str, float]) -> list[Alarm]:
    """The alarms that the last round's first proxy and the planned main run give rise to."""
    recipe, store = experiment.recipe, experiment.store
    proxy, main = recipe.training.for_run("proxy"), recipe.training.for_run("main")
    proxy_folder = planned_runs.proxy_folders(experiment, number)[recipe.seed]
    history = finished.load_history(proxy_folder, experiment.names)
    averages = {
        entry["step"]: np.array([entry[f"average_weights/{name}"] for name in experiment.names])
        for entry in history
        if f"average_weights/{experiment.names[0]}" in entry
    }
    epochs = {name: weight * main.num_tokens / store.num_tokens(name) for name, weight in answer.items()}
    tail = recipe.reweighting.tail_fraction < 1
    return [
        *checks.check_collapse(answer),
        *([] if tail else checks.check_drift(experiment.names, averages)),
        *checks.check_repetition(epochs, max_epochs=main.max_epochs),
        *checks.check_batch(proxy.global_batch_size, len(experiment.names)),
    ]


def _train_round(experiment: Experiment, number: int) -> Round:
    by_seed = {}
    for proxy in planned_runs.proxy_runs(experiment, number):
        runs.train(proxy, experiment.store)
        by_seed[proxy.seed] = _answer_of(proxy)
    mean = DomainWeights({name: float(np.mean([w[name] for w in by_seed.values()])) for name in experiment.names})
    _write(experiment.directory.round_weights(number), mean, {"round": number, "by_seed": _plain(by_seed)})
    return Round(mean, by_seed)


def _answer_of(proxy: TrainingRun) -> DomainWeights:
    assert proxy.reweighting is not None
    state = GroupDROState.from_dict(finished.objective_state(proxy.folder))
    upstream = proxy.reweighting.loss_normalisation == "self_normalised"
    average = state.average_weights_with_initial if upstream else state.average_weights
    return DomainWeights(dict(zip(state.names, average.tolist(), strict=True)))


def _log_begin(reweighting: ReweightingConfig, number: int) -> None:
    rounds, seeds = reweighting.rounds, reweighting.seeds
    if rounds != 1 or seeds != 1:
        last = f"at most {reweighting.max_rounds}" if rounds == "auto" else str(rounds)
        logger.info("round %d of %s, with %d %s", number, last, seeds, "proxy" if seeds == 1 else "proxies")


def _log_progress(progress: Progress, number: int) -> None:
    changed = f"the largest change of a weight is {progress.changes[-1]:.4f}"
    logger.info("round %d: %s%s", number, changed, f" ({progress.status})" if progress.status else "")
    if progress.warning:
        logger.warning("round %d: %s", number, progress.warning)


def _provenance(
    experiment: Experiment, found: Sequence[Round], progress: Progress, alarms: Sequence[Alarm]
) -> dict[str, Any]:
    recipe, last = experiment.recipe, found[-1]
    return {
        "method": "DoReMi: average of the Group DRO weights over the proxy's steps",
        "refers_to": "shares of token sequences under the corpus' tokenizer",
        "corpus_digest": experiment.store.digest,
        "tokenizer_digest": experiment.store.tokenizer_digest,
        "reference_weights": dict(experiment.reference_weights),
        "reweighting": redaction.public(recipe.reweighting.model_dump(mode="json")),
        "seed": recipe.seed,
        "rounds": {
            "status": progress.status,
            "changes": list(progress.changes),
            "weights": [dict(item.weights) for item in found],
        },
        "by_seed": _plain(last.by_seed),
        "spread": spread(last.by_seed),
        "alarms": [asdict(alarm) for alarm in alarms],
    }


def spread(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, float] | None:
    """The standard deviation of each weight over the proxies' seeds (n − 1); None for a single one."""
    if len(by_seed) < 2:
        return None
    names = next(iter(by_seed.values()))
    return {name: float(np.std([w[name] for w in by_seed.values()], ddof=1)) for name in names}


def _plain(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {str(seed): dict(found) for seed, found in by_seed.items()}


def _write(path: Path, answer: DomainWeights, provenance: Mapping[str, Any]) -> None:
    if launch.is_first():
        answer.to_json(path, provenance=provenance)
    launch.wait_for(lambda: _holds(path, answer), f"the weights in {path}")  # not for older ones that are still there


def _holds(path: Path, answer: DomainWeights) -> bool:
    return path.exists() and dict(DomainWeights.from_json(path)) == dict(DomainWeights(answer))
