"""The suite does not depend on how it was started: as a job in the background, a shell has Ctrl-C ignored."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.processes import ROOT, environment

SHOW = "import signal; print(signal.getsignal(signal.{name}) is signal.SIG_IGN)"
# what a test and a process that it starts would see
PROGRAM = """
import subprocess, sys
import {module}
show = {show!r}
exec(show)
sys.stdout.flush()
subprocess.run([sys.executable, "-c", show], check=True)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(("module", "is_ignored"), [("tests.conftest", False), ("tests.processes", True)])
def test_signals_that_were_ignored_reach_tests_and_their_processes(name, module, is_ignored):
    program = PROGRAM.format(module=module, show=SHOW.format(name=name))
    number = getattr(signal, name)
    done = subprocess.run(
        [sys.executable, "-c", program],
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(is_ignored)] * 2
