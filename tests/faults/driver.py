"""Runs commands in forked children, each with one fault: imports, which take longest, are done once.

Started with the shim preloaded; reads one JSON object a line, ``{"arguments": [...], "folder": ..., "number": ...,
"mode": ..., "log": ...}``, and answers each with ``{"code": ..., "output": ..., "count": ...}``.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
import traceback

import doremi.experiment.held_out_curve
import doremi.experiment.results
import doremi.report.render
import doremi.training.arguments
import doremi.training.reference_cache
import doremi.training.trainer  # noqa: F401
from doremi.cli import main

MODES = ("off", "count", "no room", "i/o error", "no room from now on", "i/o error from now on", "killed", "torn")


def run(command):
    """The exit code (negative: the signal) and what was printed."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as counted:
        child = os.fork()
        if child == 0:
            for standard in (1, 2):
                os.dup2(output.fileno(), standard)
            os._exit(_run_here(command, counted))
        _, status = os.waitpid(child, 0)
        for file in (output, counted):
            file.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "output": output.read().decode(errors="replace"),
            "count": int(counted.read() or 0),
        }


def _run_here(command, counted):
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    if command.get("log"):
        shim.faults_log(command["log"].encode())
    shim.faults_arm(command["folder"].encode(), ctypes.c_long(command["number"]), MODES.index(command["mode"]))
    try:
        code = main.main(command["arguments"])
    except BaseException:  # noqa: BLE001 - what a command lets through is a traceback for its user
        traceback.print_exc()
        code = 70
    finally:
        counted.write(str(shim.faults_count()).encode())
        counted.flush()
        sys.stdout.flush()
        sys.stderr.flush()
    return code


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
