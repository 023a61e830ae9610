"""The whole method through the command line: results that agree with each other, and kills that change nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from doremi import DomainWeights, files
from tests import trained
from tests.end_to_end.conftest import doremi


def test_everything_a_user_gets(tmp_path, recipe):
    out = tmp_path / "out"
    code, stdout, stderr = doremi("run", recipe, "--out", out)
    assert code == 0, stderr
    results = json.loads((out / "results.json").read_text())
    weights = DomainWeights.from_json(out / "weights.json")
    assert set(weights) == {"prose", "code", "junk"}
    assert dict(weights) == results["recommendation"]["weights"] == results["arms"]["natural"]["weights"]
    assert results["arms"]["doremi"]["weights"] == dict(DomainWeights.from_json(out / "answers/doremi.json"))
    assert list(results["arms"]) == ["natural", "uniform", "doremi"]
    reference = trained.folder(out, "reference")
    assert results["arms"]["natural"]["folders"] == [f"runs/{reference.name}"]  # the same run, trained once
    assert trained.names(out) == {"reference", "proxy", "uniform", "doremi"}
    check_numbers(results)
    check_table(stdout, results, out)
    check_models_load(out, results)
    check_epochs(out, results)

    drawn = files.read_marker(trained.folder(out, "proxy"))["epochs"]
    for name, domain in results["domains"].items():  # the proxy samples uniformly: 60 of its 180 rows from each
        assert drawn[name] == pytest.approx(60 / (domain["tokens"] // 32))

    before = [files.digest_file(out / name) for name in ("weights.json", "answers/doremi.json")]
    code, _, stderr = doremi("run", recipe, "--out", out)
    assert code == 0
    assert stderr.count("finished earlier, skipped") >= 4
    assert "continuing from step" not in stderr
    assert [files.digest_file(out / name) for name in ("weights.json", "answers/doremi.json")] == before

    code, _, stderr = doremi("run", recipe, "--out", out, "--set", "training.steps=31")
    assert code == 2
    assert "belongs to another recipe: training.steps differs" in stderr
    assert "Traceback" not in stderr


def check_numbers(results):
    domains = results["domains"]
    prior = np.array([d["prior"] for d in domains.values()])
    for arm in results["arms"].values():
        nats = np.array([arm["nats"][name][0] for name in domains])
        found = {key: values[0] for key, values in arm["summaries"].items()}
        assert found == pytest.approx(
            {"uniform_mean": nats.mean(), "reference_mean": nats @ prior, "worst": nats.max()}
        )
        curve = arm["curve"]
        assert curve["steps"] == [10, 20, 30]
        last = [curve["nats"][name][-1] for name in domains]
        np.testing.assert_allclose(last, nats, atol=1e-6)  # the reloaded model is the one that was trained
        assert curve["summaries"]["uniform_mean"][0] > curve["summaries"]["uniform_mean"][-1]
    tokens = np.array([d["tokens"] for d in domains.values()])
    np.testing.assert_allclose(prior, tokens / tokens.sum())
    average = results["searches"]["doremi"]["trajectory"]["average_weights"]
    assert {name: values[-1] for name, values in average.items()} == pytest.approx(results["arms"]["doremi"]["weights"])


def check_table(stdout, results, out):
    assert all(name in stdout for name in results["domains"])
    assert results["verdict"].split(",")[0] in " ".join(stdout.split())
    assert str(out / "weights.json") in stdout
    assert str(out / "report.html") in stdout
    assert "prose" in (out / "report.html").read_text()


def check_models_load(out, results):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for arm in results["arms"].values():
        model = AutoModelForCausalLM.from_pretrained(out / arm["folders"][0])
        assert model.num_parameters() == arm["num_parameters"]
        assert len(AutoTokenizer.from_pretrained(out / arm["folders"][0])) == 300


def check_epochs(out, results):
    for arm in results["arms"].values():
        for name, weight in arm["weights"].items():
            rows = results["domains"][name]["tokens"] // 32
            assert arm["epochs"][name] == pytest.approx(weight * 180 / rows, abs=2 / rows)


KILLS = [  # (stage, a pattern of files whose appearance shows that the stage is in the middle)
    ("prepare", "corpus"),
    ("reference", "runs/reference-*/checkpoint-10/complete.json"),
    ("proxy", "runs/proxy-*/checkpoint-15/complete.json"),
    ("proxy", "runs/proxy-*/checkpoint-30"),
    ("doremi", "runs/doremi-*/checkpoint-10/complete.json"),
]


def kill_when(recipe, out, sign):
    """Start a run and SIGKILL it as soon as what ``sign`` matches exists; returns its log."""
    log = out.parent / "killed.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "doremi", "run", str(recipe), "--out", str(out)], stdout=file, stderr=file
        )
        while not list(out.glob(sign)):
            assert process.poll() is None, f"finished before it could be killed: {log.read_text()}"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    return log.read_text()


@pytest.mark.slow
def test_killed_in_every_stage_and_restarted_ends_with_the_same_weights(tmp_path, recipe):
    assert doremi("run", recipe, "--out", tmp_path / "whole")[0] == 0
    logs = [kill_when(recipe, tmp_path / "killed", sign) for _, sign in KILLS]
    code, _, stderr = doremi("run", recipe, "--out", tmp_path / "killed")
    assert code == 0, stderr
    folders = [trained.folder(tmp_path / "whole", label) for label in ("proxy", "doremi")]
    models = [f"runs/{folder.name}/model.safetensors" for folder in folders]
    for name in ("weights.json", "answers/doremi.json", *models):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert_continued(logs[2], at_least=10)  # the reference had a checkpoint at step 10 when it was killed
    assert_continued(logs[3], at_least=15)
    assert_continued(logs[4], at_least=25)  # killed while the checkpoint of step 30 was being written, or just after
    assert_continued(stderr, at_least=10)


def assert_continued(log, *, at_least):
    steps = [
        int(line.split("continuing from step ")[1].split()[0]) for line in log.splitlines() if "continuing" in line
    ]
    assert steps, log
    assert steps[0] >= at_least
