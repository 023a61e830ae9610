"""One directory, one run: the second one says who has it, exits with 2 and writes nothing."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from doremi import launch
from doremi.corpus.storing import lock
from doremi.errors import InputError
from doremi.experiment import ledger
from doremi.experiment.arms import find_runs
from doremi.experiment.opening import open_experiment
from doremi.experiment.recipe import load
from doremi.experiment.run_directory import RunDirectory
from tests.end_to_end.conftest import write_corpus, write_recipe
from tests.end_to_end.proxy_run import in_process

IN_USE = r"in use by process {pid} on host \S+; wait for it \(it began at 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\)"
NUM_RACES = 40


@pytest.fixture
def recipe(tmp_path):
    write_corpus(tmp_path)
    return write_recipe(tmp_path)


def everything(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


VERBS = {
    "run": ["run", "{recipe}"],
    "demo": ["demo"],
    "train": ["train", "{recipe}", "--run", "reference"],
    "prepare": ["prepare", "{recipe}"],
    "prepare in tasks": ["prepare", "{recipe}", "--executor", "local", "--tasks", "2"],
    "evaluate": ["evaluate", "{recipe}"],
    "jobs": ["run", "{recipe}", "--slurm", "1"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_writes_is_refused_while_another_process_has_the_directory(tmp_path, recipe, capsys, verb):
    out = tmp_path / "out"
    with RunDirectory(out).held():
        before = everything(out)
        arguments = [part.format(recipe=recipe) for part in VERBS[verb]]
        assert in_process(*arguments, "--out", out) == 2
        assert everything(out) == before
    stderr = capsys.readouterr().err
    assert re.fullmatch(rf"doremi: {out}: {IN_USE.format(pid=os.getpid())}, or end it .*\n", stderr)


def test_so_is_a_report(tmp_path, capsys):
    with RunDirectory(tmp_path).held():
        assert in_process("report", tmp_path) == 2
    assert re.search(IN_USE.format(pid=os.getpid()), capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def contend(root, barrier, results):
    """One of two processes that want the same directories at the same moments."""
    for number in range(NUM_RACES):
        barrier.wait()
        try:
            with RunDirectory(root / str(number)).held():
                results.put((number, os.getpid(), None))
                barrier.wait()  # the other one has its answer
        except InputError as error:
            results.put((number, os.getpid(), str(error)))
            barrier.wait()


def test_of_two_that_begin_within_a_millisecond_one_gets_it_and_the_other_knows_whom_to_wait_for(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(2), spawn.Queue()
    processes = [spawn.Process(target=contend, args=(tmp_path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in range(2 * NUM_RACES)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for number in range(NUM_RACES):
        (winner, _), (_, message) = sorted(
            ((pid, error) for race, pid, error in answers if race == number), key=lambda item: item[1] is not None
        )
        assert re.search(IN_USE.format(pid=winner), message)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def start(recipe, out, log):
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "doremi", "run", str(recipe), "--out", str(out)], stdout=file, stderr=file
        )


@pytest.mark.parametrize("attempt", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, 8))])
def test_two_runs_at_once_and_a_third_after_the_first_was_killed(tmp_path, recipe, attempt):
    out, logs = tmp_path / "out", [tmp_path / "log-0", tmp_path / "log-1"]
    processes = [start(recipe, out, log) for log in logs]
    while all(process.poll() is None for process in processes):
        time.sleep(0.01)
    loser = 0 if processes[0].poll() is not None else 1
    winner, message = processes[1 - loser], logs[loser].read_text()
    assert processes[loser].returncode == 2, message
    assert re.fullmatch(rf"doremi: {out}: {IN_USE.format(pid=winner.pid)}, .*\n", message)
    winner.send_signal(signal.SIGKILL)
    winner.wait()
    with RunDirectory(out).held():  # the kernel gave the lock back
        pass


class TestTrainings:
    """A pipeline of Slurm trains several models of one directory at once, in jobs of their own."""

    def test_share_the_directory(self, tmp_path):
        together = RunDirectory(tmp_path).held(alone=False)
        with together, RunDirectory(tmp_path).held(alone=False), pytest.raises(InputError, match="and 1 more; wait"):
            RunDirectory(tmp_path).held().__enter__()
        with RunDirectory(tmp_path).held(), pytest.raises(InputError, match="in use by"):
            RunDirectory(tmp_path).held(alone=False).__enter__()
        assert list(tmp_path.iterdir()) == []

    def test_but_not_a_model(self, tmp_path, recipe, capsys):
        out = tmp_path / "out"
        assert in_process("prepare", recipe, "--out", out) == 0
        experiment = open_experiment(load(recipe), out)
        folder = ledger.training_run(experiment, find_runs(experiment, "reference")[0]).folder
        with lock.locked(folder, activity="being trained"):
            assert in_process("train", recipe, "--run", "reference", "--out", out) == 2
            assert [path.name for path in folder.iterdir()] == [lock.NAME]
        assert f"{folder}: being trained by process {os.getpid()} on host" in capsys.readouterr().err


def test_processes_that_were_started_together_are_one_holder(tmp_path, monkeypatch):
    with RunDirectory(tmp_path).held():
        monkeypatch.setattr(launch, "is_first", lambda: False)
        with RunDirectory(tmp_path).held():
            pass


def test_a_file_system_that_keeps_no_locks_is_said_and_nothing_is_removed(tmp_path, monkeypatch, caplog):
    def without_locks(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    (tmp_path / ".results.json.1.partial").touch()
    with RunDirectory(tmp_path).held():
        pass
    assert f"{tmp_path}: this file system keeps no locks (No locks available): see to it yourself" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [".results.json.1.partial"]


def test_a_holder_that_is_gone_is_not_named(tmp_path):
    """What a killed process left in the lock's file says nothing about who holds it now."""
    with lock.locked(tmp_path, activity="in use"):
        (tmp_path / lock.NAME).write_text(
            f"process {dead_pid()} on host {os.uname().nodename} since 2026-01-01 00:00:00\n"
        )
        with pytest.raises(InputError, match="in use by another process; wait for it, or end it"):
            lock.locked(tmp_path, activity="in use").__enter__()


def dead_pid():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


# ---- leftovers ----


def test_what_a_killed_process_left_half_written_is_removed_by_the_next_one(tmp_path):
    for name in (
        ".weights.json.12.partial",
        "answers/.doremi.json.12.partial",
        "reference_losses/0123456789ab/.manifest.json.12.partial",
        "runs/a-0123456789ab/.tmpAb3x9Z",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    others = ["corpus/.manifest.json.12.partial", "runs/a-b/model.partial", "runs/a-b/.tmp", "runs/a-b/.hidden"]
    for name in others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "recipe.yaml").touch()
    others.append("recipe.yaml")
    with RunDirectory(tmp_path).held(alone=False):
        assert (tmp_path / ".weights.json.12.partial").exists()  # its writer may be alive
    with RunDirectory(tmp_path).held():
        pass
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(others)


@pytest.mark.parametrize("has_recipe", [False, True])
def test_in_a_folder_of_others_nothing_of_theirs_is_touched(tmp_path, has_recipe):
    theirs = [
        ".tmpAb3x9Z/x",
        ".theirs.partial",
        ".other.json.12.partial",
        "a/.x.1.partial",
        "runs/b-c/.d.partial",
        "runs/b-0123456789xy/.d.partial",
        "reference_losses/mine/.d.partial",
        ".lock",
    ]
    if has_recipe:
        theirs.append("recipe.yaml")
    for name in theirs:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("theirs")
    with RunDirectory(tmp_path).held():
        pass
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(theirs)
    assert {path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == {"theirs"}


def test_a_file_in_the_way_that_is_no_lock_is_left_as_it_is(tmp_path):
    (tmp_path / lock.NAME).write_text("theirs")
    with pytest.raises(InputError, match="in the way of doremi's lock"):
        RunDirectory(tmp_path).held().__enter__()
    assert (tmp_path / lock.NAME).read_text() == "theirs"


def test_also_in_a_corpus_that_is_read_in_place(tmp_path, recipe):
    assert in_process("prepare", recipe, "--out", tmp_path / "first") == 0
    out = tmp_path / "out"
    (out / "corpus").mkdir(parents=True)
    (out / "corpus/.manifest.json.12.partial").touch()
    store = f"corpus={{store: {tmp_path / 'first/corpus'}}}"
    assert in_process("prepare", recipe, "--out", out, "--set", store) == 0
    assert sorted(path.name for path in (out / "corpus").iterdir()) == ["manifest.json"]


def test_the_identity_for_a_tracker_is_no_part_of_a_finished_model(tmp_path):
    from doremi.experiment import finished
    from doremi.training import trackers

    for name in (trackers.IDENTITY, "config.json"):
        (tmp_path / name).touch()
    assert finished.files_to_read(tmp_path) == [tmp_path / "config.json"]
