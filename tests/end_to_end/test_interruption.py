"""Signals and full disks through the command line: exit codes, messages, and the same end after going on."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from doremi.experiment import pipeline
from tests import trained
from tests.end_to_end.proxy_run import in_process, make_proxy_run
from tests.processes import files_of_at_most

STOPPED = "the same command continues"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_proxy_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(tmp_path, finished):
    """A run directory with a finished reference, to be disturbed."""
    shutil.copytree(finished.out, tmp_path / "out")
    return dataclasses.replace(finished, out=tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_during_training_saves_the_step_and_exits_with_130(run, number, caplog):
    command = [sys.executable, "-m", "doremi", *run.command]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while not (run.folder / "checkpoint-5/complete.json").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert f"doremi: interrupted by {number.name}, step " in stderr
    assert stderr.rstrip().endswith(f"is saved; {STOPPED}")
    assert "Traceback" not in stderr
    step = int(stderr.split(f"{number.name}, step ")[1].split()[0])
    assert 5 <= step < 30
    assert (run.folder / f"checkpoint-{step}/complete.json").exists()
    assert not (run.folder / "complete.json").exists()
    assert in_process(*run.command) == 0
    assert f"continuing from step {step} " in caplog.text
    run.assert_same_end()


def test_a_signal_while_evaluating_exits_with_130_at_once(run, monkeypatch, capsys):
    def evaluate(experiment):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(pipeline, "evaluate", evaluate)
    started = time.monotonic()
    assert in_process("evaluate", run.recipe, "--out", run.out) == 130
    assert time.monotonic() - started < 50
    assert capsys.readouterr().err.endswith(f"doremi: interrupted by SIGTERM; {STOPPED}\n")


READER = """
import os, random, signal, time
from pathlib import Path

here = Path(__file__).parent

def documents(domain):
    for number in range(300):
        if number == 200 and (here / domain).exists():
            (here / domain).unlink()
            (here / "sent").touch()
            os.kill({victim}, signal.{name})
            time.sleep({then_busy_for})
        text = random.Random(domain + str(number)).choices("the of and river stone return self def".split(), k=80)
        yield domain, " ".join(text)

def first():
    yield from documents("first")

def second():
    yield from documents("second")
"""


def prepare_from_readers(tmp_path, monkeypatch, *, num_workers, **values):
    """Arguments that prepare two inputs, of which the second sends a signal in the middle, the first time."""
    (tmp_path / "signalling_reader.py").write_text(READER.format(**values))
    (tmp_path / "second").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "signalling_reader", raising=False)
    content = {
        "corpus": {
            "inputs": [{"reader": "signalling_reader:first"}, {"reader": "signalling_reader:second"}],
            "tokenizer": {"path": str(tmp_path / "tokenizer"), "eos_token": "<eos>"},
            "num_workers": num_workers,
        }
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    save_tokenizer(tmp_path / "tokenizer")
    return ["prepare", recipe, "--out", tmp_path / "out"]


def save_tokenizer(folder):
    """Made beforehand: training one would read the documents first."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<eos>", "<unk>", "the", "of", "and", "river", "stone", "return", "self", "def"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<eos>"])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_while_preparing_exits_with_130_and_leaves_nothing_half_written(tmp_path, monkeypatch, capsys, name):
    command = prepare_from_readers(
        tmp_path, monkeypatch, num_workers=1, victim="os.getpid()", name=name, then_busy_for=0
    )
    assert in_process(*command) == 130
    assert (tmp_path / "sent").exists()
    assert capsys.readouterr().err.endswith(f"; {STOPPED}\n")
    assert not (tmp_path / "out/corpus/manifest.json").exists()
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".partial")]
    assert in_process(*command) == 0
    assert (tmp_path / "out/corpus/manifest.json").exists()


def test_a_signal_does_not_wait_for_worker_processes_to_finish_their_files(tmp_path, monkeypatch, capsys):
    command = prepare_from_readers(
        tmp_path, monkeypatch, num_workers=2, victim="os.getppid()", name="SIGTERM", then_busy_for=120
    )
    started = time.monotonic()
    assert in_process(*command) == 130
    assert time.monotonic() - started < 100
    assert (tmp_path / "sent").exists()
    assert multiprocessing.active_children() == []
    assert in_process(*command) == 0
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".partial")]


# ---- full disks ----


def test_no_room_for_a_checkpoint_or_for_the_model_exits_with_1_and_continues_later(run, capsys):
    folder = run.folder
    size = (trained.folder(run.undisturbed, "proxy") / "model.safetensors").stat().st_size
    with files_of_at_most(size - 1):
        assert in_process(*run.command) == 1
    message = capsys.readouterr().err.rstrip()
    assert f"doremi: the run failed: {folder}/checkpoint-5 could not be written: " in message
    assert message.endswith("make room, and the same command continues from the newest of them")
    assert not list(folder.glob("checkpoint-*"))
    assert in_process(*run.command) == 0
    run.assert_same_end()

    (folder / "complete.json").unlink()  # as if killed after the last checkpoint, before the model was saved
    (folder / "model.safetensors").unlink()
    (run.out / "weights.json").unlink()
    with files_of_at_most(size - 1):
        assert in_process(*run.command) == 1
    assert f"doremi: the run failed: {folder} could not be written: " in capsys.readouterr().err
    assert in_process(*run.command) == 0
    run.assert_same_end()


FULL_DISK = """
set -e
mount -t tmpfs -o size=100m tmpfs "$OUT"
cp -r "$FROM"/. "$OUT"
fill() { # leave $1 KiB free
    dd if=/dev/zero of="$OUT/ballast" bs=1K count=$(( $(df -k --output=avail "$OUT" | tail -1) - $1 )) status=none
}
fill 700
status=0; "$PYTHON" -m doremi train "$RECIPE" --run proxy --out "$OUT" || status=$?
echo "exit code $status"
(cd "$OUT/$PROXY" && ls -d checkpoint-*) > "$RESULTS/checkpoints"
rm "$OUT/ballast"
"$PYTHON" -m doremi train "$RECIPE" --run proxy --out "$OUT"
cp "$OUT/weights.json" "$OUT/$PROXY/model.safetensors" "$RESULTS"
"""


def may_mount():
    """Whether this user may make a mount namespace of their own."""
    probe = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="needs a file system of its own, in a namespace that users may make")
def test_a_disk_that_is_really_full(tmp_path, run):
    """The first checkpoints fit, then the disk is full."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").mkdir()
    environment = os.environ | {
        "OUT": str(tmp_path / "disk"),
        "FROM": str(run.out),
        "RESULTS": str(tmp_path / "results"),
        "RECIPE": str(run.recipe),
        "PROXY": str(run.folder.relative_to(run.out)),
        "PYTHON": sys.executable,
    }
    command = ["unshare", "--map-root-user", "--mount", "bash", "-c", FULL_DISK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "exit code 1" in done.stdout
    assert "os error 28" in done.stderr or "Errno 28" in done.stderr or "inline_container" in done.stderr, done.stderr
    kept = (tmp_path / "results/checkpoints").read_text().split()
    assert kept
    assert f"continuing from step {max(int(name.split('-')[1]) for name in kept)} " in done.stderr
    for name in ("weights.json", "model.safetensors"):
        expected = run.undisturbed / ("" if name == "weights.json" else run.folder.relative_to(run.out)) / name
        assert (tmp_path / "results" / name).read_bytes() == expected.read_bytes()
