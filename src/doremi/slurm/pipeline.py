"""The job script of a recipe: a few quoted values, then ``pipeline.sh``, which is the same for every recipe."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from doremi import files, redaction
from doremi.config import RUNS, RunName
from doremi.errors import InputError
from doremi.experiment import preflight, unprepared
from doremi.experiment.recipe import ClusterConfig, Recipe
from doremi.experiment.run_directory import RunDirectory
from doremi.methods import imagined
from doremi.training import arguments

CACHES = {"HF_HOME": "huggingface", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}


def write(recipe: Recipe, out: Path, *, num_nodes: int) -> Path:
    """Claim the run directory and write its job script, which submits itself when it is run; submits nothing.

    The run directory, what the recipe names and this Python must be at the same paths on all nodes. Relative paths are
    those of the current folder.

    Raises:
        InputError: what `preflight.check` refuses, a batch cannot be split over the processes, the directory belongs
            to another recipe, there is less than one node, or the recipe holds a secret.
    """
    if num_nodes < 1:
        raise InputError(f"--slurm {num_nodes}: at least 1 node")
    for run in RUNS:
        arguments.split_batch(recipe.training.for_run(run), world_size=num_nodes * num_processes(recipe.cluster))
    redaction.refuse_in_jobs(recipe.model_dump(mode="json"))
    preflight.check(recipe, out)
    directory = RunDirectory(out.absolute())
    directory.claim(recipe)
    path = directory.root / "slurm" / "pipeline.sh"
    files.write_text(path, script(recipe, directory.root, num_nodes=num_nodes, working_directory=Path.cwd()))
    return path


class Stages(NamedTuple):
    """Whose answers there are to verify, by the label of the method."""

    known: list[str]  # that ask for nothing
    to_be_found: list[str]  # by the search
    known_share_models: bool  # whether a model that verifies one of the former may be one of the search


def find_stages(recipe: Recipe) -> Stages:
    """What the methods of a recipe ask for.

    Raises:
        InputError: weights or options of the recipe that cannot be used.
    """
    bench = unprepared.make(recipe)
    asked = {item.label: imagined.asked(item.method, bench) for item in recipe.named_methods}
    runs = [run for wanted in asked.values() for run in wanted]
    return Stages(
        known=[label for label, wanted in asked.items() if not wanted],
        to_be_found=[label for label, wanted in asked.items() if wanted],
        known_share_models=any(
            run.policy is None and _trained_alike(recipe, run.size, recipe.verify.size) for run in runs
        ),
    )


def _trained_alike(recipe: Recipe, one: RunName, other: RunName) -> bool:
    """Whether runs of two sizes can be the same."""
    first, second = ((getattr(recipe.models, size), recipe.training.for_run(size)) for size in (one, other))
    return first == second


def num_processes(cluster: ClusterConfig) -> int:
    """Of each node: one for each GPU, or a single one."""
    return max(cluster.gpus_per_node, 1)


def script(recipe: Recipe, root: Path, *, num_nodes: int, working_directory: Path) -> str:
    """The text of the script for the run directory ``root``."""
    body = resources.files("doremi.slurm").joinpath("pipeline.sh").read_text(encoding="utf-8")
    return "\n".join(["#!/bin/bash", *_values(recipe, root, num_nodes, working_directory), *_set_up(recipe), "", body])


def _values(recipe: Recipe, root: Path, num_nodes: int, working_directory: Path) -> Iterator[str]:
    cluster = recipe.cluster
    stages = find_stages(recipe)
    yield f"run={shlex.quote(str(root))}"
    yield f"processes={num_processes(cluster)}  # on each node"
    yield f"grace={cluster.grace_seconds}"
    yield f"prepare_tasks={0 if recipe.corpus.store is not None else cluster.prepare_tasks}"
    yield f"searches={_yes(bool(stages.to_be_found))}"
    yield f"known={_array(stages.known)}  # methods that answer before anything is trained"
    yield f"known_share_models={_yes(stages.known_share_models)}  # with the search"
    yield f"to_be_found={_array(stages.to_be_found)}"
    yield f"common={_array(_common(cluster, root, working_directory))}"
    yield f"training={_array([*_partition(cluster.partition), *_nodes(cluster, num_nodes)])}"
    yield f"evaluating={_array([*_partition(cluster.partition), *_nodes(cluster, 1, num_gpus=1)])}"
    preparing = [f"--cpus-per-task={cluster.prepare_cpus}", "--nodes=1", "--ntasks=1"]
    yield f"preparing={_array([*_partition(cluster.prepare_partition or cluster.partition), *preparing])}"


def _common(cluster: ClusterConfig, root: Path, working_directory: Path) -> Iterator[str]:
    yield f"--time={cluster.time}"
    if cluster.account is not None:
        yield f"--account={cluster.account}"
    yield f"--chdir={working_directory}"
    yield f"--output={str(root / 'slurm').replace('%', '%%')}/%x-%j.log"
    yield "--open-mode=append"  # a job that was put back goes on with its log
    yield "--requeue"
    yield f"--signal=B:USR1@{cluster.grace_seconds}"
    yield from (f"--{option}={value}" if value else f"--{option}" for option, value in cluster.sbatch.items())


def _partition(name: str | None) -> list[str]:
    return [] if name is None else [f"--partition={name}"]


def _nodes(cluster: ClusterConfig, num_nodes: int, *, num_gpus: int | None = None) -> Iterator[str]:
    yield f"--nodes={num_nodes}"
    yield "--ntasks-per-node=1"
    if cluster.gpus_per_node:
        yield f"--gpus-per-node={num_gpus or cluster.gpus_per_node}"
    if cluster.cpus_per_node is not None:
        yield f"--cpus-per-task={cluster.cpus_per_node}"


def _set_up(recipe: Recipe) -> Iterator[str]:
    """A function of shell: the environment of this Python, the caches, and the recipe's own lines as they are."""
    cluster = recipe.cluster
    yield "set_up() {"
    yield f"    export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    if cluster.cache is not None:
        cache = Path(cluster.cache).absolute()
        yield from (f"    export {name}={shlex.quote(str(cache / folder))}" for name, folder in CACHES.items())
    yield from (f"    {line}" for line in cluster.set_up)
    yield "}"


def _array(values: Sequence[str] | Iterator[str]) -> str:
    return f"({' '.join(map(shlex.quote, values))})"


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"
