"""Seeded bad input: one short line, exit code 2, no traceback, nothing half-written; within 1 GB and 30 s.

``pytest tests/hostile -k recipes-17`` repeats one case; its number is the seed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from random import Random

import pytest

from doremi.text import visible
from tests.hostile import command_lines, data_files, manifests, models, recipes, zygote
from tests.hostile.bench import Bench
from tests.hostile.prepared import make_base
from tests.processes import environment

KINDS = {
    module.__name__.rpartition(".")[2]: module for module in (recipes, data_files, manifests, models, command_lines)
}
QUICK, ALL = 20, 120  # of each kind
MAX_LINE, MAX_PROBLEMS = 1000, 20

cases = [
    pytest.param(kind, number, id=f"{kind}-{number}", marks=[] if number < QUICK else pytest.mark.slow)
    for number in range(ALL)
    for kind in KINDS
]


@pytest.fixture(scope="session")
def doremi():
    """Runs a command line in a folder."""
    command = [sys.executable, "-m", "tests.hostile.zygote"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:

        def run(arguments, folder):
            process.stdin.write(json.dumps({"arguments": arguments, "folder": str(folder)}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


@pytest.fixture(scope="session")
def base(doremi, tmp_path_factory):
    return make_base(doremi, tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(("kind", "number"), cases)
def test_bad_input(doremi, base, tmp_path, kind, number):
    make = KINDS[kind].CLASSES[number % len(KINDS[kind].CLASSES)]
    bench = Bench(tmp_path, base, Random(f"{kind}-{number}"))
    case = make(bench)
    before = results_in(tmp_path / "out")
    found = doremi(case.arguments, tmp_path)
    shown = f"{make.__name__}: {case.arguments!r:.300}\n{found['stderr'][-3000:]}"
    assert not found["timed_out"], shown
    assert "Traceback" not in found["stderr"], shown
    assert found["code"] == (0 if case.is_valid else 2), f"exit code {found['code']}: {shown}"
    assert found["megabytes"] < zygote.MEGABYTES, shown
    assert_short(found["stderr"], shown)
    for stream in ("stdout", "stderr"):
        assert visible(found[stream], keep="\n\r") == found[stream], f"{stream}: {shown}"
    assert not list(tmp_path.rglob("*.partial")), shown
    assert results_in(tmp_path / "out") == before, shown


def assert_short(stderr, shown):
    """The last lines are the message: a first one, and for a recipe one for each of its problems."""
    lines = stderr.rstrip("\n").split("\n")
    starts = [index for index, line in enumerate(lines) if line.startswith("doremi: ")]
    assert len(starts) == 1, shown
    message = lines[starts[0] :]
    assert len(message) <= 1 + MAX_PROBLEMS, shown
    assert all(re.match("doremi: |  ", line) for line in message), shown
    assert max(map(len, message)) <= MAX_LINE, shown


def results_in(folder):
    """What only a finished stage may leave behind."""
    return [name for name in ("runs", "answers", "weights.json", "results.json") if (folder / name).exists()]
