"""A recipe's plan: everything that can be said before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doremi.config import RunName
from doremi.corpus import TokenStore
from doremi.corpus.reading.listing import check_inputs
from doremi.evaluation.perplexity import finite
from doremi.experiment import preflight
from doremi.experiment.opening import RUNS, prepared_store, smaller_main
from doremi.experiment.recipe import Recipe
from doremi.experiment.run_directory import RunDirectory
from doremi.models.size import ModelSize, measure
from doremi.planning import disk, doubts, held_out, memory
from doremi.planning.disk import Disk
from doremi.planning.held_out import HeldOutScoring
from doremi.planning.memory import Memory
from doremi.planning.stages import Inputs, Stage, known_answer, stages
from doremi.training import arguments
from doremi.weights import published


@dataclass(frozen=True)
class Plan:
    """What a recipe will train and take. `doremi.planning.show` prints it."""

    sizes: dict[RunName, ModelSize]
    stages: list[Stage]
    store: TokenStore | None  # None: the corpus is not prepared, so that nothing is known of its domains
    memories: dict[RunName, Memory]  # on each device
    disk: Disk
    held_out: HeldOutScoring | None
    num_devices: int
    is_bound: bool  # rounds: auto, planned as if it took all of max_rounds
    doubts: list[str]

    @property
    def main_flops(self) -> float:
        """FLOPs of one main run, which the others are shares of."""
        return next(stage.flops / stage.num_models for stage in self.stages if stage.name == "main")

    @property
    def total_flops(self) -> float:
        """Of all stages and evaluations."""
        return sum(stage.flops for stage in self.stages) + (self.held_out.flops if self.held_out else 0.0)


def make(recipe: Recipe, out: Path, *, num_devices: int = 1) -> Plan:
    """Plan a recipe whose run directory is or will be ``out``; writes nothing.

    Raises:
        InputError: what `preflight.check` refuses, a batch that cannot be split over the devices, a corpus that is not
            that of the recipe, or local inputs that are not there.
    """
    preflight.check(recipe, out)
    store = prepared_store(recipe, out)
    if store is None:
        check_inputs(recipe.corpus, sets=recipe.evaluation.sets)
    vocab_size = store.vocab_size if store else _vocab_size(recipe)
    sizes = {run: _measure(recipe, run, vocab_size=vocab_size) for run in RUNS}
    inputs = Inputs(recipe, sizes, num_devices, store, known_answer(out))
    found = stages(inputs)
    names = inputs.reference_weights()
    memories = {run: _memory(recipe, run, sizes, num_devices) for run in RUNS if _is_trained(recipe, run)}
    space = disk.estimate(inputs, found, RunDirectory(out).corpus)
    return Plan(
        sizes=sizes,
        stages=found,
        store=store,
        memories=memories,
        disk=space,
        held_out=held_out.scoring(recipe, found, store, names.names) if store and names else None,
        num_devices=num_devices,
        is_bound=recipe.reweighting.rounds == "auto",
        doubts=[
            *doubts.repetition(recipe, found),
            *doubts.batch(recipe, len(names) if names else _num_named_domains(recipe)),
            *doubts.proxy_size(recipe, found),
            *smaller_main({run: size.num_parameters for run, size in sizes.items()}),
            *doubts.disk(space, out),
        ],
    )


def _measure(recipe: Recipe, run: RunName, *, vocab_size: int) -> ModelSize:
    length = recipe.training.for_run(run).sequence_length
    return measure(getattr(recipe.models, run), name=run, sequence_length=length, vocab_size=vocab_size)


def _num_named_domains(recipe: Recipe) -> int:
    """Domains that the reference weights name, before the corpus is prepared; 0 where they are a rule."""
    spec = recipe.weights.reference
    if isinstance(spec, dict):
        return len(spec)
    return len(published.load(spec).weights) if spec in published.names() else 0


def _is_trained(recipe: Recipe, run: RunName) -> bool:
    return getattr(recipe.models, run).init != "trained"


def _memory(recipe: Recipe, run: RunName, sizes: dict[RunName, ModelSize], num_devices: int) -> Memory:
    config = recipe.training.for_run(run)
    micro_batch_size, _ = arguments.split_batch(config, world_size=num_devices)
    frozen_bytes = 0.0
    if run == "proxy":
        bytes_per_parameter = 4 if recipe.reweighting.reference_dtype == "float32" else 2
        is_sharded = config.arguments.get("fsdp") and not recipe.reweighting.reference_cache
        shards = num_devices if is_sharded else 1
        frozen_bytes = bytes_per_parameter * sizes["reference"].num_parameters / shards
    return memory.estimate(
        sizes[run], config, micro_batch_size=micro_batch_size, num_devices=num_devices, frozen_bytes=frozen_bytes
    )


def _vocab_size(recipe: Recipe) -> int:
    from doremi.corpus.tokenizing import tokenizers

    config = recipe.corpus.tokenizer
    if config.path is None:
        return config.vocab_size
    return tokenizers.load(config.path, eos_token=config.eos_token).entry.vocab_size


def to_dict(plan: Plan) -> dict[str, Any]:
    """JSON-able; bytes and FLOPs as they are, the unknown as null."""
    return {
        "stages": [_stage_dict(stage, plan.main_flops) for stage in plan.stages],
        "held_out": _held_out_dict(plan.held_out) if plan.held_out else None,
        "memory_bytes": {run: {**needed._asdict(), "total": needed.total} for run, needed in plan.memories.items()},
        "disk_bytes": {**plan.disk._asdict(), "total": plan.disk.total},
        "num_devices": plan.num_devices,
        "total_flops": finite(plan.total_flops),
        "is_bound": plan.is_bound,
        "doubts": plan.doubts,
    }


def _held_out_dict(scoring: HeldOutScoring) -> dict[str, Any]:
    return scoring._asdict() | {"flops": finite(scoring.flops)}


def _stage_dict(stage: Stage, main_flops: float) -> dict[str, Any]:
    return {
        "name": stage.name,
        "num_models": stage.num_models,
        "num_parameters": stage.size.num_parameters,
        "num_tokens": stage.num_tokens,
        "flops": finite(stage.flops),
        "share_of_main": finite(stage.flops / main_flops),
        "epochs": None if stage.epochs is None else dict(stage.epochs),
    }
