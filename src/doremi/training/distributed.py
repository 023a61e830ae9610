"""The one file that knows torch.distributed. Every helper answers for a single process too."""

from __future__ import annotations

import torch
import torch.distributed as dist

from doremi import launch
from doremi.errors import InputError


def is_active() -> bool:
    """Whether a process group is up."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if is_active() else 1


def rank() -> int:
    """Index of this process; 0 without a process group."""
    return dist.get_rank() if is_active() else 0


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in place, also returned."""
    if world_size() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
    return tensor


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


def check_all_are_here() -> None:
    """To be called once the process group should be up.

    Raises:
        InputError: fewer processes have met than were started; each would train alone, on the data of one of many.
    """
    if world_size() != launch.world_size():
        raise InputError(
            f"{launch.world_size()} processes were announced (WORLD_SIZE), but {world_size()} train together; start "
            "them with --nproc N, or with torchrun --nproc-per-node=N -m doremi"
        )


def leave() -> None:
    """End this process' part in the group, after the last training: what follows is the first process' alone."""
    if is_active():
        dist.destroy_process_group()
