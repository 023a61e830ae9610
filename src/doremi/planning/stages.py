"""What a recipe will train: which models, how many of each, on how many tokens, with how many FLOPs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from doremi.config import RunName
from doremi.corpus import TokenStore
from doremi.experiment.opening import weights_setting
from doremi.experiment.planned_runs import train_the_same, trains_alike
from doremi.experiment.recipe import Recipe
from doremi.experiment.run_directory import RunDirectory
from doremi.experiment.runs import BASELINE, MAIN
from doremi.models.size import ModelSize
from doremi.planning.rows import expected_distinct, expected_rows
from doremi.training import arguments
from doremi.weights import DomainWeights, specs, uniform


@dataclass(frozen=True)
class Stage:
    """Models that are trained alike, but for their seeds or, over rounds, their weights."""

    name: str  # as `doremi train --run` has it
    model: RunName
    num_models: int
    size: ModelSize
    num_rows: int  # that one model is trained on
    num_tokens: int
    flops: float  # of all the models; NaN: not known
    rows: Mapping[str, float] | None  # that one model draws of each domain; None: not known yet
    epochs: Mapping[str, float] | None

    @property
    def steps_flops(self) -> float:
        """FLOPs of one model."""
        return self.flops / max(self.num_models, 1)


@dataclass(frozen=True)
class Inputs:
    """What stages are worked out from."""

    recipe: Recipe
    sizes: Mapping[RunName, ModelSize]
    num_devices: int
    store: TokenStore | None  # once it is prepared
    answer: DomainWeights | None  # once the proxy has given it

    @property
    def num_rounds(self) -> int:
        """Rounds of DoReMi, at most."""
        config = self.recipe.reweighting
        return config.max_rounds if config.rounds == "auto" else config.rounds

    def reference_weights(self) -> DomainWeights | None:
        """Over the domains of the experiment; None while the corpus is not prepared."""
        return None if self.store is None else self._resolve(self.recipe.weights.reference, self.store.names)

    def resolve(self, spec: specs.WeightsSpec) -> DomainWeights | None:
        """Weights over the domains of the experiment; None while they cannot be known."""
        reference = self.reference_weights()
        if reference is None or (specs.needs_answer(spec) and self.answer is None):
            return None
        return self._resolve(spec, reference.names, reference)

    def _resolve(
        self, spec: specs.WeightsSpec, names: tuple[str, ...], reference: DomainWeights | None = None
    ) -> DomainWeights:
        assert self.store is not None
        setting = weights_setting(self.recipe, self.store)
        known = specs.Setting(**vars(setting) | {"reference": reference, "answer": self.answer})
        return specs.resolve(spec, known, names)


def known_answer(out: Path) -> DomainWeights | None:
    """The weights that an earlier call left in the run directory."""
    path = RunDirectory(out).weights
    return DomainWeights.from_json(path) if path.is_file() else None


def stages(inputs: Inputs) -> list[Stage]:
    """In the order in which they are trained; a model that is two of them is counted where it comes first."""
    return [*_search(inputs), *_comparisons(inputs)]


def _search(inputs: Inputs) -> Iterator[Stage]:
    reference = inputs.reference_weights()
    if inputs.recipe.models.reference.init != "trained":
        yield _stage(inputs, "reference", "reference", reference, num_models=inputs.num_rounds)
    num_proxies = inputs.num_rounds * inputs.recipe.reweighting.seeds
    yield _stage(inputs, "proxy", "proxy", uniform(reference.names) if reference else None, num_models=num_proxies)


def _comparisons(inputs: Inputs) -> Iterator[Stage]:
    """The main model on each of the weights; those that are known to be the same are trained once."""
    recipe, reference = inputs.recipe, inputs.reference_weights()
    seeds = recipe.weights.seeds
    shared = trains_alike(recipe, "reference", "main")
    yield _stage(inputs, BASELINE, "main", reference, num_models=seeds - 1 if shared else seeds)
    yield _stage(inputs, MAIN, "main", inputs.answer, num_models=seeds)
    taken = [reference, inputs.answer]
    for spec in recipe.weights.baselines:
        weights = inputs.resolve(spec)
        known = weights is not None and any(other and train_the_same(weights, other) for other in taken)
        if spec == recipe.weights.reference or known:
            continue
        taken.append(weights)
        yield _stage(inputs, specs.label(spec), "main", weights, num_models=seeds)


def _stage(inputs: Inputs, name: str, model: RunName, weights: DomainWeights | None, *, num_models: int) -> Stage:
    config = inputs.recipe.training.for_run(model)
    num_rows = config.steps * config.global_batch_size
    rows = epochs = None
    if inputs.store is not None and weights is not None:
        available = {name: inputs.store.num_sequences(name, config.sequence_length) for name in weights}
        repetition = config.mixture().repetition
        rows = expected_rows(weights, num_rows=num_rows, available=available, repetition=repetition)
        epochs = {name: count / max(available[name], 1) for name, count in rows.items()}
    flops = num_models * num_rows * inputs.sizes[model].training_flops(config.sequence_length)
    if model == "proxy":
        flops += _proxy_flops(inputs, num_rows=num_rows, num_models=num_models, rows=rows)
    size, num_tokens = inputs.sizes[model], config.num_tokens
    return Stage(name, model, num_models, size, num_rows, num_tokens, flops, rows, epochs)


def _proxy_flops(inputs: Inputs, *, num_rows: int, num_models: int, rows: Mapping[str, float] | None) -> float:
    """What the proxies compute besides training: the reference's losses, and their own once more where α_t needs it."""
    config, reweighting = inputs.recipe.training.for_run("proxy"), inputs.recipe.reweighting
    length, flops = config.sequence_length, 0.0
    _, num_micro_batches = arguments.split_batch(config, world_size=inputs.num_devices)
    if reweighting.weights_update == "exact" and num_micro_batches > 1:
        flops += num_models * num_rows * inputs.sizes["proxy"].forward_flops(length)
    if reweighting.objective != "hardest":
        scored: float = num_models * num_rows
        if reweighting.reference_cache:
            scored = inputs.num_rounds * cached_rows(inputs, num_rows=num_rows, rows=rows)
        flops += scored * inputs.sizes["reference"].forward_flops(length)
    return flops


def cached_rows(inputs: Inputs, *, num_rows: int, rows: Mapping[str, float] | None) -> float:
    """Rows whose losses one round's reference is asked for, at most where the corpus is not prepared."""
    seeds = inputs.recipe.reweighting.seeds
    if rows is None or inputs.store is None:
        return float(seeds * num_rows)
    length = inputs.recipe.training.for_run("proxy").sequence_length
    available = {name: inputs.store.num_sequences(name, length) for name in rows}
    return sum(expected_distinct(drawn, available=available[name], num_runs=seeds) for name, drawn in rows.items())
