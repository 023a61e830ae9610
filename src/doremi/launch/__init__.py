"""Several processes, how they are started and how they end, and what a person sees of long work meanwhile."""

from doremi.launch.interruption import INTERRUPTED
from doremi.launch.processes import (
    exit_process,
    fail,
    is_first,
    is_launched,
    prefix,
    rank,
    use_processes,
    wait_for,
    world_size,
)

__all__ = [
    "INTERRUPTED",
    "exit_process",
    "fail",
    "is_first",
    "is_launched",
    "prefix",
    "rank",
    "use_processes",
    "wait_for",
    "world_size",
]
