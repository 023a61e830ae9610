"""The one file that knows torch.distributed. Every helper answers for a single process too."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist


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


def launched_world_size() -> int:
    """Processes that torchrun started, also before the process group is up."""
    return int(os.environ.get("WORLD_SIZE", "1"))
