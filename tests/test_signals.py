"""Two signals a moment apart, at any point of a command's life: exit code 130, no traceback, nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from doremi.launch import interruption
from tests.end_to_end.conftest import write_corpus, write_recipe
from tests.processes import environment

APART = 0.05
PAIRS = [(signal.SIGINT, signal.SIGINT), (signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGTERM)]


def start(*arguments):
    """As a shell starts it in the foreground, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "doremi", *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def send(process, pair):
    for number in pair:
        os.killpg(process.pid, number)
        time.sleep(APART)


def assert_ended_in_order(process):
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert stderr.count("doremi: interrupted") == 1, stderr
    assert "the same command continues" in stderr
    with pytest.raises(ProcessLookupError):  # no process of the group is left
        os.killpg(process.pid, 0)


def loaded_modules(process):
    try:
        return Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("module", "pair"),  # early, and in the longest of all imports
    [
        *[("pydantic_core", pair) for pair in PAIRS],
        ("libtorch_cpu", PAIRS[0]),
        *[pytest.param("libtorch_cpu", pair, marks=pytest.mark.slow) for pair in PAIRS[1:]],
    ],
)
def test_during_imports(tmp_path, module, pair):
    write_corpus(tmp_path)
    with start("run", write_recipe(tmp_path), "--out", tmp_path / "out") as process:
        while module not in loaded_modules(process):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.002)
        send(process, pair)
        assert_ended_in_order(process)


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("sign", ["corpus/work/plan.json", "runs/proxy-*/checkpoint-5/complete.json", "runs/uniform-*"])
def test_while_preparing_with_workers_training_and_evaluating(tmp_path, pair, sign):
    write_corpus(tmp_path)
    command = ["run", write_recipe(tmp_path), "--out", tmp_path / "out", "--set", "corpus.num_workers=2"]
    with start(*command) as process:
        while not list((tmp_path / "out").glob(sign)):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.002)
        send(process, pair)
        assert_ended_in_order(process)
    with start(*command) as process:
        _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_second_signal_on_the_heels_of_the_first_is_the_same_wish(monkeypatch):
    ended, now = [], [100.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(interruption.os, "_exit", ended.append)
    with interruption.handled():
        with pytest.raises(KeyboardInterrupt, match="interrupted by SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert ended == []
        now[0] += interruption.SAME_WISH_SECONDS + 0.1
        os.kill(os.getpid(), signal.SIGINT)
        assert ended == [130]


def test_what_handled_signals_before_does_again():
    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    with interruption.handled():
        assert signal.getsignal(signal.SIGINT) is not before[0] or before[0] is signal.SIG_IGN
    assert [signal.getsignal(number) for number in interruption.SIGNALS] == before
