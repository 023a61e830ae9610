"""A whole recipe as jobs of a Slurm cluster: ``doremi run RECIPE --slurm NODES``."""

from doremi.slurm.pipeline import write

__all__ = ["write"]
