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


@contextmanager
def files_of_at_most(num_bytes):
    """A limit of the kernel on the size of files that this process writes: the same class of failure as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
