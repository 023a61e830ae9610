"""``doremi run RECIPE --slurm NODES``: the whole recipe as jobs of a Slurm cluster."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from doremi.launch import console

if TYPE_CHECKING:
    from doremi.experiment.recipe import Recipe


def add_slurm(parser: argparse.ArgumentParser) -> None:
    """The flag."""
    parser.add_argument(
        "--slurm",
        type=int,
        metavar="NODES",
        help="run nothing here: write a job script of all stages for Slurm, which trains on so many nodes, from the "
        "recipe's `cluster` section, and print how to submit it",
    )


def write_pipeline(recipe: Recipe, out: Path, num_nodes: int) -> None:
    """Write the script and say what to do with it."""
    from doremi import slurm

    path = slurm.write(recipe, out, num_nodes=num_nodes)
    console.show(
        f"wrote    {path}\n"
        f"submit   bash {shlex.quote(str(path))}\n"
        f"logs     {path.parent}\n"
        "It submits every stage with sbatch, each to begin after those that it needs, and prints the numbers of the "
        "jobs. After a failure, submit again: what is finished is skipped."
    )
