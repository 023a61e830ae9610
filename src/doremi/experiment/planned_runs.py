"""The training runs of an experiment: which there are, on what weights, in which folders. Trains nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from doremi import weights
from doremi.config import RunName
from doremi.errors import InputError
from doremi.experiment import finished
from doremi.experiment.opening import Experiment
from doremi.experiment.recipe import Recipe
from doremi.experiment.runs import BASELINE, MAIN, TrainingRun
from doremi.weights import DomainWeights, specs

ROUNDING = 1e-12  # of a weight


@dataclass(frozen=True)
class Comparison:
    """The main model on one of the weights that are compared, with every seed."""

    name: str  # in the results
    weights_name: str
    runs: dict[int, TrainingRun]  # by seed, the recipe's first

    @property
    def sampling_weights(self) -> DomainWeights:
        """What all of them are trained on."""
        return next(iter(self.runs.values())).sampling_weights


def find_runs(experiment: Experiment, name: str) -> list[TrainingRun]:
    """The runs of that name, trained or not, one for each seed; of several rounds the first.

    Raises:
        InputError: there is no such run, or it needs weights that the proxy has not given yet.
    """
    labels = map(specs.label, experiment.recipe.weights.baselines)
    known = list(dict.fromkeys(["reference", "proxy", BASELINE, MAIN, *labels]))
    if name not in known:
        raise InputError(f"no run {name!r}; there are {', '.join(known)}")
    if name == "reference":
        return [reference_run(experiment, 1, experiment.reference_weights)]
    if name == "proxy":
        return proxy_runs(experiment, 1)
    if name == BASELINE:
        return [*_baseline(experiment).runs.values()]
    # a further baseline that equals the reference weights is the baseline
    found = next((item for item in comparisons(experiment) if item.name == name), _baseline(experiment))
    return [*found.runs.values()]


def reference_run(experiment: Experiment, number: int, sampling_weights: DomainWeights) -> TrainingRun:
    """Step 1 of a round: the reference model, on the reference weights of that round.

    Raises:
        InputError: the recipe names a trained reference.
    """
    if experiment.recipe.models.reference.init == "trained":
        raise InputError("models.reference is a trained model (init: trained); there is no reference to train")
    folder = experiment.directory.round(number, "reference")
    name = _in_round("reference", number)
    return _training_run(experiment, "reference", name=name, folder=folder, sampling_weights=sampling_weights)


def proxy_runs(experiment: Experiment, number: int) -> list[TrainingRun]:
    """Step 2 of a round: the proxy, once for each of ``reweighting.seeds``."""
    recipe = experiment.recipe
    reference, adversary = reference_folder(experiment, number), experiment.adversary_options()
    return [
        _training_run(
            experiment,
            "proxy",
            name=_in_round("proxy", number),
            folder=folder,
            sampling_weights=weights.uniform(experiment.names),
            seed=seed,
            reference=reference,
            reference_losses=experiment.directory.round(number, "reference_losses"),
            reference_attention=recipe.models.reference.attn_implementation,
            reweighting=recipe.reweighting,
            adversary=adversary,
        )
        for seed, folder in proxy_folders(experiment, number).items()
    ]


def proxy_folders(experiment: Experiment, number: int) -> dict[int, Path]:
    """Where the proxies of a round lie, by seed."""
    first = experiment.recipe.seed
    seeds = range(first, first + experiment.recipe.reweighting.seeds)
    return {
        seed: experiment.directory.round(number, "proxy" if seed == first else f"proxy-seed-{seed}") for seed in seeds
    }


def reference_folder(experiment: Experiment, number: int) -> Path:
    """Where the reference of a round lies: in the run directory, or where the recipe says."""
    config = experiment.recipe.models.reference
    if config.init != "trained":
        return experiment.directory.round(number, "reference")
    from doremi.models import loading

    return loading.trained_reference(config, tokenizer_digest=experiment.store.tokenizer_digest)


def comparisons(experiment: Experiment) -> list[Comparison]:
    """The runs to compare: baseline, main, and the further baselines. Needs DoReMi's weights.

    A further baseline whose weights are the reference weights is the baseline already, and left out; two rules that
    give the same weights share their models.

    Raises:
        InputError: no proxy has given weights yet.
    """
    if not experiment.directory.weights.exists():
        raise InputError(f"{experiment.directory.weights}: not there yet; run `doremi train --run proxy` first")
    answer = finished.answer(experiment.directory.weights, experiment.names)
    found = [_baseline(experiment), _comparison(experiment, MAIN, "doremi", answer)]
    for spec in experiment.recipe.weights.baselines:
        candidate = experiment.resolve(spec, answer=answer)
        if not train_the_same(candidate, experiment.reference_weights):
            label = specs.label(spec)
            new = _comparison(experiment, label, label, candidate)
            same = next((item for item in found if train_the_same(item.sampling_weights, candidate)), new)
            found.append(replace(new, runs=same.runs))
    return found


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """(tuned, baseline): DoReMi's with the baseline, every other with the baseline, DoReMi's with every other."""
    others = [name for name in names if name not in (BASELINE, MAIN)]
    return [(MAIN, BASELINE), *((name, BASELINE) for name in others), *((MAIN, name) for name in others)]


def same_as_reference(experiment: Experiment, compared: Sequence[Comparison]) -> list[str]:
    """The further baselines that `comparisons` leaves out."""
    names = {item.name for item in compared}
    return [label for label in map(specs.label, experiment.recipe.weights.baselines) if label not in names]


def train_the_same(one: DomainWeights, other: DomainWeights) -> bool:
    """But for rounding: rules that agree get there by different sums, and their models would be the same."""
    return one.keys() == other.keys() and all(abs(one[name] - other[name]) < ROUNDING for name in one)


def trains_alike(recipe: Recipe, first: RunName, second: RunName) -> bool:
    """Whether two models of the recipe have the same size and settings: one run then serves for both."""
    same_model = getattr(recipe.models, first) == getattr(recipe.models, second)
    return same_model and recipe.training.for_run(first) == recipe.training.for_run(second)


def _baseline(experiment: Experiment) -> Comparison:
    """The main model on the reference weights: the reference's own run where both would be the same."""
    name = specs.label(experiment.recipe.weights.reference)
    shared = trains_alike(experiment.recipe, "reference", "main")
    folders = {experiment.recipe.seed: experiment.directory.round(1, "reference")} if shared else {}
    return _comparison(experiment, BASELINE, name, experiment.reference_weights, folders=folders)


def _comparison(
    experiment: Experiment,
    name: str,
    weights_name: str,
    sampling: DomainWeights,
    *,
    folders: Mapping[int, Path] = MappingProxyType({}),
) -> Comparison:
    """The main model on some weights with every seed, in ``folders`` or in those named after the weights."""
    first = experiment.recipe.seed
    runs = {
        seed: _training_run(
            experiment,
            "main",
            name=name,
            folder=folders.get(seed) or experiment.directory.run(weights_name, seed=seed),
            sampling_weights=sampling,
            seed=seed,
        )
        for seed in range(first, first + experiment.recipe.weights.seeds)
    }
    return Comparison(name, weights_name, runs)


def _in_round(name: str, number: int) -> str:
    return name if number == 1 else f"{name}, round {number}"


def _training_run(
    experiment: Experiment, model: RunName, *, name: str, seed: int | None = None, **settings: Any
) -> TrainingRun:
    """A run of one of the recipe's three models; ``settings`` are the rest of `TrainingRun`."""
    recipe = experiment.recipe
    seed = recipe.seed if seed is None else seed
    return TrainingRun(
        **settings,
        name=name if seed == recipe.seed else f"{name}, seed {seed}",
        seed=seed,
        group=experiment.directory.root.resolve().name,
        model=getattr(recipe.models, model),
        training=recipe.training.for_run(model),
        evaluation=recipe.evaluation.during_training(),
        names=experiment.names,
    )
