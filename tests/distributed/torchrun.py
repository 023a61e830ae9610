"""Starting processes as a user does, and ending them as a machine does."""

from __future__ import annotations

import subprocess
import sys

from tests.processes import ROOT, environment


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
