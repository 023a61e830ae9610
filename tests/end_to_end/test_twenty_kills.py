"""SIGKILL at 20 random moments of a proxy run: every restart goes on, and the end is that of an undisturbed run."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time

import pytest

from doremi.training import checkpoints
from tests.end_to_end.proxy_run import make_proxy_run, training_log

STEPS, SAVE_STEPS = 300, 3
MOMENTS = ["starting"] * 3 + ["stepping"] * 7 + ["saving"] * 10
SECONDS = {"starting": 8.0, "stepping": 0.06, "saving": 0.03}  # that such a moment lasts; kills are spread over it


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 22 starts, each of which imports torch
def test_twenty_kills_change_nothing(tmp_path):
    run = make_proxy_run(
        tmp_path, steps=STEPS, save_steps=SAVE_STEPS, logging_steps=SAVE_STEPS, eval_steps=STEPS, save_total_limit=2
    )
    rng, num_half_written = random.Random(0), 0
    for number, moment in enumerate(rng.sample(MOMENTS, k=len(MOMENTS))):
        newest = newest_complete(run.folder)
        log = kill(run, moment, rng=rng, log=tmp_path / f"log-{number}")
        started = re.findall(r"continuing from step (\d+)", log)
        assert started == ([str(newest)] if newest else []) or (moment == "starting" and not started), log
        assert newest_complete(run.folder) >= newest
        num_half_written += bool(half_written(run.folder))
    newest = newest_complete(run.folder)
    assert 60 < newest < STEPS
    assert num_half_written >= 5, "the kills while saving came too late"
    log = finish(run, tmp_path / "log")
    assert f"continuing from step {newest} " in log
    run.assert_same_end()
    assert training_log(run.out) == training_log(run.undisturbed)


def kill(run, moment, *, rng, log):
    """Continue the run and kill it at a random moment of the given kind; returns what it said."""
    wanted = newest_complete(run.folder) + SAVE_STEPS * rng.randint(1, 3)
    delay = rng.uniform(0, SECONDS[moment])
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "-m", "doremi", *run.command], stdout=output, stderr=output)
        if moment != "starting":
            wait_until(lambda: newest_complete(run.folder) >= wanted, process, log)
        if moment == "saving":
            wait_until(lambda: half_written(run.folder), process, log)
        time.sleep(delay)
        process.kill()
        assert process.wait() == -9, log.read_text()
    return log.read_text()


def wait_until(condition, process, log):
    while not condition():
        assert process.poll() is None, log.read_text()
        time.sleep(0.0005)


def newest_complete(folder):
    """By the markers alone, without the code that is tested; 0 where there is none."""
    return max((int(path.parent.name.split("-")[1]) for path in folder.glob("checkpoint-*/complete.json")), default=0)


def half_written(folder):
    """Checkpoints after the newest complete one."""
    return [step for step in checkpoints.steps(folder) if step > newest_complete(folder)]


def finish(run, log):
    with log.open("w") as output:
        command = [sys.executable, "-m", "doremi", *run.command]
        assert subprocess.run(command, stdout=output, stderr=output, check=False).returncode == 0, log.read_text()
    return log.read_text()
