"""A recipe's plan: everything that can be said before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doremi.config import RUNS, RunName
from doremi.corpus import TokenStore
from doremi.corpus.reading.listing import check_inputs
from doremi.evaluation.perplexity import finite
from doremi.experiment import preflight, unprepared
from doremi.experiment.opening import prepared_store, smaller_main
from doremi.experiment.recipe import Recipe
from doremi.experiment.run_directory import RunDirectory
from doremi.methods.protocol import Run, Scoring
from doremi.models.size import ModelSize, measure
from doremi.planning import disk, doubts, held_out, memory
from doremi.planning.disk import Disk
from doremi.planning.held_out import HeldOutScoring
from doremi.planning.inputs import Inputs
from doremi.planning.inputs import make as make_inputs
from doremi.planning.memory import Memory
from doremi.planning.stages import Stage, total_flops
from doremi.planning.stages import plan as plan_stages
from doremi.training import arguments


@dataclass(frozen=True)
class Plan:
    """What a recipe will train and take. `doremi.planning.show` prints it."""

    sizes: dict[RunName, ModelSize]
    stages: list[Stage]
    verify_size: RunName
    verify_flops: float  # of one run of that size without a policy, which the others are shares of
    store: TokenStore | None  # None: the corpus is not prepared, so that nothing is known of its domains
    memories: dict[RunName, Memory]  # on each device
    disk: Disk
    held_out: HeldOutScoring | None
    num_devices: int
    is_bound: bool  # the search may end sooner than planned
    doubts: list[str]

    @property
    def search_flops(self) -> float:
        """Of the models that the methods ask for."""
        return total_flops(self.stages, "search")

    @property
    def verification_flops(self) -> float:
        """Of the models trained on the answers."""
        return total_flops(self.stages, "verification")

    @property
    def total_flops(self) -> float:
        """Of search, verification and evaluations."""
        return self.search_flops + self.verification_flops + (self.held_out.flops if self.held_out else 0.0)


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
    inputs = make_inputs(recipe, out, sizes=sizes, num_devices=num_devices, store=store)
    found = plan_stages(inputs)
    space = disk.estimate(recipe, found.stages, found.losses, corpus=RunDirectory(out).corpus if store else None)
    return Plan(
        sizes=sizes,
        stages=found.stages,
        verify_size=recipe.verify.size,
        verify_flops=_verify_flops(inputs),
        store=store,
        memories={run: _memory(inputs, run, found.stages) for run in RUNS if _stages_of(run, found.stages)},
        disk=space,
        held_out=held_out.scoring(recipe, found.stages, store, inputs.bench.names) if store else None,
        num_devices=num_devices,
        is_bound=found.is_bound,
        doubts=[
            *doubts.repetition(recipe, found.stages),
            *doubts.batch(recipe, found.stages, len(inputs.bench.names if store else unprepared.named(recipe))),
            *doubts.proxy_size(recipe, found.stages),
            *_smaller_main(sizes, found.stages),
            *doubts.disk(space, out),
        ],
    )


def _measure(recipe: Recipe, run: RunName, *, vocab_size: int) -> ModelSize:
    length = recipe.training.for_run(run).sequence_length
    return measure(getattr(recipe.models, run), name=run, sequence_length=length, vocab_size=vocab_size)


def _verify_flops(inputs: Inputs) -> float:
    """FLOPs of one run of the size that answers are verified with."""
    size = inputs.recipe.verify.size
    config = inputs.training[size]
    return config.steps * config.global_batch_size * inputs.sizes[size].training_flops(config.sequence_length)


def _stages_of(run: RunName, stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in stages if stage.model == run]


def _smaller_main(sizes: Mapping[RunName, ModelSize], stages: Sequence[Stage]) -> Iterator[str]:
    """A doubt that there is where a proxy stands for the main model."""
    if all(_stages_of(run, stages) for run in ("proxy", "main")):
        yield from smaller_main({run: size.num_parameters for run, size in sizes.items()})


def _memory(inputs: Inputs, run: RunName, stages: Sequence[Stage]) -> Memory:
    config = inputs.training[run]
    micro_batch_size, _ = arguments.split_batch(config, world_size=inputs.num_devices)
    return memory.estimate(
        inputs.sizes[run],
        config,
        micro_batch_size=micro_batch_size,
        num_devices=inputs.num_devices,
        frozen_bytes=max(_frozen_bytes(inputs, stage.run) for stage in _stages_of(run, stages)),
    )


def _frozen_bytes(inputs: Inputs, run: Run) -> float:
    """The reference that a run keeps beside its own model; one that may be skipped is never sharded."""
    size, scoring = inputs.reference_size(run), run.scoring or Scoring()
    if size is None:
        return 0.0
    bytes_per_parameter = 4 if scoring.dtype == "float32" else 2
    is_sharded = inputs.training[run.size].arguments.get("fsdp") and scoring.cache == "none"
    return bytes_per_parameter * inputs.sizes[size].num_parameters / (inputs.num_devices if is_sharded else 1)


def _vocab_size(recipe: Recipe) -> int:
    from doremi.corpus.tokenizing import tokenizers

    config = recipe.corpus.tokenizer
    if config.path is None:
        return config.vocab_size
    return tokenizers.load(config.path, eos_token=config.eos_token).entry.vocab_size


def to_dict(plan: Plan) -> dict[str, Any]:
    """JSON-able; bytes and FLOPs as they are, the unknown as null."""
    return {
        "stages": [_stage_dict(stage, plan.verify_flops) for stage in plan.stages],
        "held_out": _held_out_dict(plan.held_out) if plan.held_out else None,
        "memory_bytes": {run: {**needed._asdict(), "total": needed.total} for run, needed in plan.memories.items()},
        "disk_bytes": {**plan.disk._asdict(), "total": plan.disk.total},
        "num_devices": plan.num_devices,
        "search_flops": finite(plan.search_flops),
        "verification_flops": finite(plan.verification_flops),
        "total_flops": finite(plan.total_flops),
        "is_bound": plan.is_bound,
        "doubts": plan.doubts,
    }


def _held_out_dict(scoring: HeldOutScoring) -> dict[str, Any]:
    return scoring._asdict() | {"flops": finite(scoring.flops)}


def _stage_dict(stage: Stage, verify_flops: float) -> dict[str, Any]:
    return {
        "name": stage.name,
        "part": stage.part,
        "also": list(stage.also),
        "num_models": stage.num_models,
        "num_parameters": stage.size.num_parameters,
        "num_tokens": stage.num_tokens,
        "flops": finite(stage.flops),
        "share_of_main": finite(stage.flops / verify_flops),
        "epochs": None if stage.epochs is None else dict(stage.epochs),
    }
