"""`doremi run` with several processes: through torchrun and by --nproc, killed, interrupted, failing, misused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from tempfile import TemporaryFile

import psutil
import pytest

from doremi import DomainWeights, files
from doremi.cli.main import main
from tests import trained
from tests.distributed.torchrun import run
from tests.processes import ROOT, environment

SETTINGS = ["--set", "methods=[natural, doremi]"]
SHARDED_PROXY = [  # the other models are replicated; a rank may find all its reference losses cached, and another none
    *("--set", "training.overrides={proxy: {arguments: {fsdp: true}}}"),
    *("--set", "methods.doremi.reference_cache=true"),
]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "doremi"]


@pytest.mark.slow
def test_killed_interrupted_and_continued_gives_the_weights_of_one_process(tmp_path, recipe):
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["run", str(recipe), "--out", str(one), *SETTINGS]) == 0
    command = ["run", recipe, "--out", two, *SETTINGS, *SHARDED_PROXY]
    code, log = stop(two, [*TORCHRUN, *command], signal.SIGKILL, when="reference")
    assert code == -signal.SIGKILL
    assert not files.read_marker(trained.folder(two, "reference")), log

    command = ["doremi", *command, "--nproc", "2"]
    code, log = stop(two, command, signal.SIGTERM, when="proxy")
    assert code == 130, log
    assert log.count("interrupted by SIGTERM") == 1
    assert log.count("continuing from step ") == 1
    assert not files.read_marker(trained.folder(two, "proxy"))

    code, stdout, stderr = run(*command)
    assert code == 0, stderr
    assert stderr.count("continuing from step ") == 1
    assert "[process 1]" not in stderr
    assert stdout.count("Held-out loss in nats per token") == stdout.count(f"weights  {two}") == 1
    same_but_for_rounding(one, two)


def same_but_for_rounding(one, two):
    weights = [dict(DomainWeights.from_json(folder / "weights.json")) for folder in (one, two)]
    assert weights[1] == pytest.approx(weights[0], abs=1e-6)
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, two)]
    means = [{label: arm["summaries"]["uniform_mean"] for label, arm in of["arms"].items()} for of in results]
    assert means[0].keys() == means[1].keys()
    for label, values in means[0].items():
        assert means[1][label] == pytest.approx(values, abs=1e-5)
    for name in ("reference", "proxy"):
        markers = [files.read_marker(trained.folder(folder, name)) for folder in (one, two)]
        assert markers[0]["epochs"] == markers[1]["epochs"]
    assert (two / "report.html").exists()


def stop(out, command, number, *, when):
    """Start a command, send its first process a signal at step 10 of a run; (exit code, log). No process survives.

    Args:
        out: the run directory.
        command: what is started.
        number: of the signal.
        when: label of the run.
    """
    arguments = [sys.executable, "-m", *map(str, command)]
    with TemporaryFile("w+") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log, cwd=ROOT, env=environment())
        while not list(out.glob(f"runs/{when}-*/checkpoint-10/complete.json")):
            assert process.poll() is None, read(log)
            time.sleep(0.002)
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 2
        process.send_signal(number)
        code = process.wait(timeout=60)
        _, alive = psutil.wait_procs(started, timeout=10)
        assert not alive
        return code, read(log)


def read(file):
    file.seek(0)
    return file.read()


def test_a_loss_that_is_not_finite_stops_all_and_is_told_once(tmp_path, recipe):
    code, _, stderr = run(
        *("doremi", "train", recipe, "--run", "reference", "--out", tmp_path / "out", "--nproc", "2"),
        *("--set", "training.learning_rate=1e30"),
    )
    assert code == 1
    assert stderr.count("doremi: the run failed: step 2: the gradient norm is nan") == 1, stderr
    assert "Traceback" not in stderr
    assert not files.read_marker(trained.folder(tmp_path / "out", "reference"))


def test_a_mistake_is_told_once_with_the_exit_code_of_a_mistake(tmp_path, recipe):
    settings = ["--set", "training.micro_batch_size=2"]
    code, _, stderr = run("doremi", "run", recipe, "--nproc", "2", "--out", tmp_path / "out", *settings)
    assert code == 2
    assert stderr.count("is 6, not a multiple of 2 processes × micro-batch 2; use 4 or 8") == 1, stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out").exists()
