"""The flags of ``doremi prepare``: what encodes, and in how many tasks on which machines."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from doremi.errors import InputError, install_hint
from doremi.launch import console

if TYPE_CHECKING:
    from doremi.corpus.preparing.preparation import EncodeAll
    from doremi.corpus.preparing.slurm import SlurmOptions
    from doremi.experiment.recipe import Recipe
    from doremi.experiment.run_directory import RunDirectory

BACKENDS = ("auto", "tokenizers", "fastokens")


def add_tokenizer_backend(parser: argparse.ArgumentParser) -> None:
    """``--tokenizer-backend``, short for a ``--set``."""
    parser.add_argument(
        "--tokenizer-backend",
        dest="overrides",
        action="append",
        type=_backend_override,
        metavar="|".join(BACKENDS),
        help="library that encodes, short for --set corpus.tokenizer.backend=...; auto takes fastokens where it is "
        f"installed ({install_hint('fast')}) and gives the ids of tokenizers. The result does not depend on it",
    )


def _backend_override(name: str) -> str:
    if name not in BACKENDS:
        raise argparse.ArgumentTypeError(f"{name!r}; choose one of {', '.join(BACKENDS)}")
    return f"corpus.tokenizer.backend={name}"


def add_executor(parser: argparse.ArgumentParser) -> None:
    """``--executor`` and what goes with it: preparing in tasks, on one machine or many."""
    group = parser.add_argument_group(
        "many machines",
        f"The input files are shared out to tasks that datatrove runs ({install_hint('cluster')}); all machines "
        "need the inputs and the run directory at the same paths. The tokenizer is trained here, once. The result does "
        "not depend on the number of tasks; what was interrupted goes on with the same command.",
    )
    group.add_argument(
        "--executor",
        choices=["local", "ray", "slurm"],
        help="local: processes here; ray: the cluster of RAY_ADDRESS, or one on this machine; slurm: submit an "
        "array of jobs and one that finishes, and return",
    )
    group.add_argument("--tasks", type=positive, metavar="N", help="number of tasks; more than input files is no use")
    group.add_argument("--cpus-per-task", type=positive, default=1, metavar="N", help="of ray and slurm (default: 1)")
    group.add_argument("--partition", metavar="NAME", help="of slurm")
    group.add_argument(
        "--time", default="24:00:00", metavar="HH:MM:SS", help="limit of a slurm job (default: 24:00:00)"
    )
    group.add_argument(
        "--sbatch",
        action="append",
        default=[],
        type=_key_and_value,
        metavar="OPTION=VALUE",
        help="further option of sbatch, such as account=mine; repeatable",
    )


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r}; expected OPTION=VALUE, such as account=mine")
    return key.removeprefix("--"), value


def prepare_in_tasks(recipe: Recipe, out: Path, options: argparse.Namespace) -> bool:
    """Do what the flags of `add_executor` say, if anything; whether the corpus can be opened or prepared here now."""
    if options.executor is None:
        if options.tasks is not None:
            raise InputError("--tasks: what runs them? Give --executor local, ray or slurm")
        return True
    if options.tasks is None:
        raise InputError(f"--executor {options.executor}: how many tasks? Give --tasks N, at most one an input file")
    if recipe.corpus.store is not None:  # read where it lies
        return True
    from doremi.experiment import preflight
    from doremi.experiment.run_directory import RunDirectory

    preflight.check(recipe, out)
    directory = RunDirectory(out)
    if options.executor == "slurm":
        return _submit(recipe, directory, _slurm_options(options))
    from doremi.corpus import prepare
    from doremi.experiment import named_domains

    engine = _engine(options)
    directory.claim(recipe)
    prepare(
        recipe.corpus,
        directory.corpus,
        sets=recipe.evaluation.sets,
        encode_all=engine,
        check_domains=partial(named_domains.check, recipe),
    )
    return True


def _engine(options: argparse.Namespace) -> EncodeAll:
    from doremi.corpus.preparing.cluster import LocalTasks, RayTasks

    if options.executor == "ray":
        return RayTasks(options.tasks, cpus_per_task=options.cpus_per_task)
    return LocalTasks(options.tasks)


def _slurm_options(options: argparse.Namespace) -> SlurmOptions:
    from doremi.corpus.preparing.slurm import SlurmOptions

    if options.partition is None:
        raise InputError("--executor slurm: give --partition NAME (sinfo lists those of the cluster)")
    return SlurmOptions(
        options.tasks,
        partition=options.partition,
        time=options.time,
        cpus_per_task=options.cpus_per_task,
        sbatch=dict(options.sbatch),
    )


def _submit(recipe: Recipe, directory: RunDirectory, options: SlurmOptions) -> bool:
    from doremi.corpus.preparing import slurm
    from doremi.experiment import named_domains

    directory.claim(recipe)
    submitted = slurm.submit(
        recipe.corpus,
        directory.corpus,
        options,
        sets=recipe.evaluation.sets,
        check_domains=partial(named_domains.check, recipe),
    )
    if submitted is None:
        return True
    encoding, finishing = submitted.encoding_job, submitted.finishing_job
    console.show(
        f"submitted  {encoding}: {options.num_tasks} tasks; {finishing}: puts them together\n"
        f"queue      squeue --jobs {encoding},{finishing}\n"
        f"output     {directory.corpus / slurm.LOGS}\n"
        "The same command prints the corpus when they are done, and submits what is left after a failure."
    )
    return False


def positive(text: str) -> int:
    """The type of a flag that counts something."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: at least 1")
    return number
