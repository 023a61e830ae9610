"""Processes of their own, and limits on this one."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment():
    """This one's, with the tests importable."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def put_commands_on_path(folder, monkeypatch, scripts):
    """Stand-ins for a cluster's commands by name; returns the folder that they keep their state in, $SLURM_STUB."""
    commands, state = folder / "slurm-commands", folder / "slurm-state"
    for each in (commands, state):
        each.mkdir()
    for name, script in scripts.items():
        (commands / name).write_text(script)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STUB", str(state))
    return state


@contextmanager
def files_of_at_most(num_bytes):
    """A limit of the kernel on the size of files that this process writes: the same class of failure as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
