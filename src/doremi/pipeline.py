"""The stages of a DoReMi run as functions of the recipe. Each is idempotent: finished work is skipped."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doremi import files, launch, runs, weights
from doremi.corpus import TokenStore, manifest, prepare
from doremi.errors import InputError, MissingFileError
from doremi.mixture.inspect import MixtureForecast, forecast
from doremi.recipe import Recipe, ReweightingConfig, RunName
from doremi.run_directory import RunDirectory
from doremi.runs import BASELINE, MAIN, TrainingRun
from doremi.weights import DomainWeights

logger = logging.getLogger(__name__)

WeightsSpec = str | dict[str, float]  # natural, uniform, a JSON file, or a mapping
RUNS: tuple[RunName, ...] = ("reference", "proxy", "main")


@dataclass(frozen=True)
class Comparison:
    """One of the runs that are compared: its name in the results, what its weights are called, and the run."""

    name: str
    weights_name: str
    run: TrainingRun


@dataclass(frozen=True)
class Experiment:
    """A recipe, its run directory, and its corpus once that is prepared."""

    recipe: Recipe
    directory: RunDirectory
    store: TokenStore
    reference_weights: DomainWeights  # over the domains of the experiment, in the corpus' order

    @property
    def names(self) -> tuple[str, ...]:
        """The domains of the experiment: those with a reference weight above 0."""
        return self.reference_weights.names


def set_threads(recipe: Recipe) -> None:
    """CPU threads of torch, if the recipe says how many."""
    import torch

    if recipe.training.num_threads is not None:
        torch.set_num_threads(recipe.training.num_threads)


def check_devices(recipe: Recipe) -> None:
    """What training needs of the processes and their devices; raises what `arguments.check_devices` does."""
    from doremi.training import arguments

    for run in RUNS:
        arguments.check_devices(recipe.training.for_run(run))


def open_experiment(recipe: Recipe, out: Path) -> Experiment:
    """Claim the run directory and prepare the corpus; the first stage of everything else.

    Raises:
        InputError: the directory belongs to another recipe, or the recipe does not fit the corpus.
    """
    _check_settings(recipe)
    directory = RunDirectory(out)
    store = _prepare(recipe, directory)
    reference_weights = resolve_weights(recipe.weights.reference, store, store.names)
    experiment = Experiment(recipe, directory, store, reference_weights)
    _check(experiment)
    return experiment


def _prepare(recipe: Recipe, directory: RunDirectory) -> TokenStore:
    """The corpus, prepared by the first of several processes; the others open it once it is there."""
    if launch.is_first():
        directory.claim(recipe)
        return prepare(recipe.corpus, directory.corpus)
    launch.wait_for((directory.corpus / manifest.NAME).is_file, f"the corpus in {directory.corpus}")
    return TokenStore.open(directory.corpus, packing=recipe.corpus.packing)


def resolve_weights(spec: WeightsSpec, store: TokenStore, names: Sequence[str]) -> DomainWeights:
    """Weights of a recipe: ``natural`` or ``uniform`` over ``names``, a mapping, or a JSON file.

    Returns them in the corpus' order of domains, without those of weight 0.

    Raises:
        InputError: no such rule or file, or a domain that is not one of ``names``.
    """
    if spec == "natural":
        found = weights.natural({name: store.num_tokens(name) for name in names})
    elif spec == "uniform":
        found = weights.uniform(names)
    elif isinstance(spec, dict):
        found = DomainWeights(spec, source="weights.reference").restricted_to(names, source="weights.reference")
    elif Path(spec).is_file():
        found = DomainWeights.from_json(spec).restricted_to(names, source=spec)
    else:
        raise MissingFileError(f"weights: {spec!r} is neither natural, nor uniform, nor a file")
    return DomainWeights({name: found[name] for name in store.names if found.get(name, 0) > 0})


def train_reference(experiment: Experiment) -> TrainingRun:
    """Step 1: the reference model, on the reference weights."""
    run = _reference_run(experiment)
    runs.train(run, experiment.store)
    return run


def train_proxy(experiment: Experiment) -> DomainWeights:
    """Step 2: the proxy with Group DRO; writes ``weights.json``, the answer."""
    train_reference(experiment)
    run = _proxy_run(experiment)
    runs.train(run, experiment.store)
    return _write_weights(experiment, run)


def comparisons(experiment: Experiment) -> list[Comparison]:
    """The runs to compare: baseline, main, and the further baselines. Needs DoReMi's weights.

    A further baseline whose weights are the reference weights is the baseline already, and left out.
    """
    doremi_weights = DomainWeights.from_json(experiment.directory.weights)
    found = [_baseline(experiment), _comparison(experiment, MAIN, "doremi", doremi_weights)]
    for spec in experiment.recipe.weights.baselines:
        candidate = resolve_weights(spec, experiment.store, experiment.names)
        if dict(candidate) != dict(experiment.reference_weights):
            found.append(_comparison(experiment, weights_name(spec), weights_name(spec), candidate))
    return found


def train_comparisons(experiment: Experiment) -> None:
    """Step 3: the main model on each of the weights."""
    for item in comparisons(experiment):
        runs.train(item.run, experiment.store)


def find_run(experiment: Experiment, name: str) -> TrainingRun:
    """The run of that name, trained or not.

    Raises:
        InputError: there is no such run, or it needs weights that the proxy has not given yet.
    """
    known = ["reference", "proxy", BASELINE, MAIN, *map(weights_name, experiment.recipe.weights.baselines)]
    if name not in known:
        raise InputError(f"no run {name!r}; there are {', '.join(known)}")
    if name == "reference":
        return _reference_run(experiment)
    if name == "proxy":
        return _proxy_run(experiment)
    if name == BASELINE:
        return _baseline(experiment).run
    if not experiment.directory.weights.exists():
        raise InputError(f"{experiment.directory.weights}: not there yet; run `doremi train --run proxy` first")
    # a further baseline that equals the reference weights is the baseline
    return next((item.run for item in comparisons(experiment) if item.name == name), _baseline(experiment).run)


def train_one(experiment: Experiment, name: str) -> None:
    """``doremi train --run NAME``: one run and what it depends on; raises what `find_run` does."""
    from doremi.training import distributed

    run = find_run(experiment, name)
    if name == "proxy":
        train_proxy(experiment)
    else:
        runs.train(run, experiment.store)
    distributed.leave()


def forecast_run(experiment: Experiment, name: str, *, num_steps: int | None = None) -> MixtureForecast:
    """What the loader of a run will draw in its first steps (default: in all of them); raises what `find_run` does."""
    run = find_run(experiment, name)
    schedule = run.training.mixture().schedule(
        experiment.store,
        run.names,
        weights=run.sampling_weights,
        global_batch_size=run.training.global_batch_size,
        seed=run.seed,
    )
    return forecast(schedule, num_steps=run.training.steps if num_steps is None else num_steps)


def evaluate(experiment: Experiment) -> dict[str, Any]:
    """Step 4: score the final models on held-out text and write ``results.json``."""
    from doremi.results import collect_results

    results = collect_results(experiment, comparisons(experiment))
    files.write_json(experiment.directory.results, results)
    return results


def run_all(experiment: Experiment) -> dict[str, Any] | None:
    """Every stage, from the reference to ``report.html``.

    Returns:
        The results; None in all of several processes but the first, whose part ends with the training.
    """
    from doremi.report.render import write_report
    from doremi.training import distributed

    train_proxy(experiment)
    train_comparisons(experiment)
    distributed.leave()
    if not launch.is_first():
        return None
    results = evaluate(experiment)
    write_report(experiment.directory.root)
    return results


def trains_alike(recipe: Recipe, first: RunName, second: RunName) -> bool:
    """Whether two models of the recipe have the same size and settings: one run then serves for both."""
    same_model = getattr(recipe.models, first) == getattr(recipe.models, second)
    return same_model and recipe.training.for_run(first) == recipe.training.for_run(second)


def _training_run(experiment: Experiment, model: RunName, **settings: Any) -> TrainingRun:
    """A run of one of the recipe's three models; ``settings`` are the rest of `TrainingRun`."""
    recipe = experiment.recipe
    return TrainingRun(
        **{"name": model} | settings,
        model=getattr(recipe.models, model),
        training=recipe.training.for_run(model),
        evaluation=recipe.evaluation,
        names=experiment.names,
        seed=recipe.seed,
    )


def _reference_run(experiment: Experiment) -> TrainingRun:
    folder = experiment.directory.round(1, "reference")
    return _training_run(experiment, "reference", folder=folder, sampling_weights=experiment.reference_weights)


def _proxy_run(experiment: Experiment) -> TrainingRun:
    return _training_run(
        experiment,
        "proxy",
        folder=experiment.directory.round(1, "proxy"),
        sampling_weights=weights.uniform(experiment.names),
        reference=experiment.directory.round(1, "reference"),
        reference_attention=experiment.recipe.models.reference.attn_implementation,
        reweighting=experiment.recipe.reweighting,
    )


def _baseline(experiment: Experiment) -> Comparison:
    """The main model on the reference weights: the reference's own run where both would be the same."""
    name = weights_name(experiment.recipe.weights.reference)
    shared = trains_alike(experiment.recipe, "reference", "main")
    folder = experiment.directory.round(1, "reference") if shared else None
    return _comparison(experiment, BASELINE, name, experiment.reference_weights, folder=folder)


def _comparison(
    experiment: Experiment, name: str, weights_name: str, sampling: DomainWeights, *, folder: Path | None = None
) -> Comparison:
    """The main model on some weights, in ``folder`` or in the one named after them."""
    folder = folder or experiment.directory.run(weights_name, seed=experiment.recipe.seed)
    run = _training_run(experiment, "main", name=name, folder=folder, sampling_weights=sampling)
    return Comparison(name, weights_name, run)


def weights_name(spec: WeightsSpec) -> str:
    """``natural`` for the rule, the stem for a file, ``reference`` for a mapping."""
    return "reference" if isinstance(spec, dict) else Path(spec).stem


def _write_weights(experiment: Experiment, proxy: TrainingRun) -> DomainWeights:
    marker = files.read_marker(proxy.folder)
    assert marker is not None
    dro = marker["objective"]
    average = [total / dro["num_updates"] for total in dro["weights_sum"]]
    answer = DomainWeights(dict(zip(dro["names"], average, strict=True)))
    provenance = {
        "method": "DoReMi: average of the Group DRO weights over the proxy's steps",
        "refers_to": "shares of token sequences under the corpus' tokenizer",
        "corpus_digest": experiment.store.digest,
        "tokenizer_digest": experiment.store.tokenizer_digest,
        "proxy_digest": marker["digest"],
        "reference_weights": dict(experiment.reference_weights),
        "step_size": dro["step_size"],
        "smoothing": dro["smoothing"],
        "weights_update": experiment.recipe.reweighting.weights_update,
        "reference_losses": _describe_reference_losses(experiment.recipe.reweighting),
        "num_updates": dro["num_updates"],
        "seed": experiment.recipe.seed,
    }
    path = experiment.directory.weights
    if launch.is_first():
        answer.to_json(path, provenance=provenance)
    launch.wait_for(lambda: _holds(path, answer), f"the weights in {path}")  # not for older ones that are still there
    return answer


def _holds(path: Path, answer: DomainWeights) -> bool:
    return path.exists() and dict(DomainWeights.from_json(path)) == dict(DomainWeights(answer))


def _describe_reference_losses(reweighting: ReweightingConfig) -> str:
    if not reweighting.reference_cache:
        return f"computed at every step, parameters in {reweighting.reference_dtype}"
    return f"computed once, parameters in {reweighting.reference_dtype}, cached as {reweighting.reference_cache_dtype}"


def _check_settings(recipe: Recipe) -> None:
    """What can be known before the corpus is prepared."""
    from doremi.training import arguments

    for run in RUNS:
        arguments.check(recipe.training.for_run(run))


def _check_baselines(experiment: Experiment) -> None:
    """Every further baseline can be resolved, and has a name (and so a folder and a column) of its own."""
    reference = experiment.recipe.weights.reference
    taken = {"reference", "proxy", BASELINE, MAIN, "doremi", weights_name(reference)}
    for spec in experiment.recipe.weights.baselines:
        resolve_weights(spec, experiment.store, experiment.names)
        name = weights_name(spec)
        if name in taken and spec != reference:
            raise InputError(f"weights.baselines: {spec}: the name {name!r} is taken by another run; rename the file")
        taken.add(name)


def _check(experiment: Experiment) -> None:
    """What can be known before hours of training."""
    from doremi.training import models

    names, recipe = experiment.names, experiment.recipe
    if len(names) < 2:
        raise InputError(
            f"the experiment has one domain, {names[0]!r}; weights need at least two. Check `domain` or `domain_field` "
            "of the inputs, and weights.reference"
        )
    _check_baselines(experiment)
    for run in RUNS:
        training = recipe.training.for_run(run)
        models.configure(
            getattr(recipe.models, run),
            vocab_size=experiment.store.vocab_size,
            eos_token_id=experiment.store.eos_token_id,
            sequence_length=training.sequence_length,
        )
        for name in names:
            if experiment.store.num_sequences(name, training.sequence_length) < 1:
                raise InputError(
                    f"domain {name!r} has {experiment.store.num_tokens(name)} tokens, fewer than one sequence of "
                    f"{training.sequence_length}; add text, leave the domain out of weights.reference, or shorten "
                    "training.sequence_length"
                )
    batch = recipe.training.for_run("proxy").global_batch_size
    if batch < len(names) and not recipe.reweighting.allow_absent_domains:
        raise InputError(
            f"training.global_batch_size is {batch} for {len(names)} domains; the proxy needs at least {len(names)} so "
            "that no domain is ever absent. Raise it, or set reweighting.allow_absent_domains: true"
        )
