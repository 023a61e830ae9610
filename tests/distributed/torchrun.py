"""Starting processes as a user does, and ending them as a machine does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def torchrun(num_processes, *arguments):
    """Run a module under torchrun to its end; (exit code, stdout, stderr)."""
    return run("torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}", "-m", *arguments)


def run(module, *arguments):
    """Run a module to its end; (exit code, stdout, stderr)."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment(), check=False
    )
    return done.returncode, done.stdout, done.stderr


def environment():
    """This one's, with the tests importable."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
