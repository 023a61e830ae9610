"""A method and a policy of a user's, one class each, through search, plan, kill and resume, verification and report."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time

import pytest
import yaml

from doremi import DomainWeights, files
from doremi.cli.main import main
from tests import trained
from tests.end_to_end import toys

METHODS = ["natural", {"tests.end_to_end.toys:Harder": {"sharpness": 0.5}}, "tests.end_to_end.toys:TowardsLoss"]
LABELS = ["natural", "Harder", "TowardsLoss"]


@pytest.fixture
def toy_recipe(recipe):
    content = yaml.safe_load(recipe.read_text())
    content["methods"] = METHODS
    content["training"] |= {"steps": 8, "eval_steps": 4, "save_steps": 2, "logging_steps": 2}
    recipe.write_text(yaml.safe_dump(content))
    return recipe


def train_nats(out, label):
    history = files.read_json(trained.folder(out, label) / "history.json")
    return [entry for entry in history if "train_nats/code" in entry][-1]


def test_a_method_and_a_policy_from_plan_to_report(tmp_path, capsys, toy_recipe):
    out = tmp_path / "out"
    assert main(["plan", str(toy_recipe), "--out", str(out), "--json"]) == 0
    stages = {stage["name"]: stage["num_models"] for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert stages == {"harder": 2, "natural": 1, "Harder": 1, "TowardsLoss": 1}
    assert main(["run", str(toy_recipe), "--out", str(out)]) == 0
    assert trained.names(out) == {"harder-seed-0", "harder-seed-1", "natural", "Harder", "TowardsLoss"}
    answer = DomainWeights.from_json(out / "answers/Harder.json")
    losses = [train_nats(out, f"harder, seed {number}") for number in range(2)]
    expected = {name: math.exp(0.5 * sum(of[f"train_nats/{name}"] for of in losses) / 2) for name in answer}
    assert dict(answer) == pytest.approx(dict(DomainWeights(expected)), rel=1e-12)
    results = json.loads((out / "results.json").read_text())
    assert list(results["arms"]) == LABELS
    assert results["arms"]["TowardsLoss"]["weights"] is None
    assert results["arms"]["Harder"]["search_flops"] > 0
    assert results["arms"]["natural"]["search_flops"] == 0
    assert {(found["tuned"], found["baseline"]) for found in results["comparisons"]} >= {
        ("Harder", "natural"), ("TowardsLoss", "natural")
    }  # fmt: skip
    report = (out / "report.html").read_text()
    assert all(label in report for label in LABELS)


def test_the_policy_moves_what_is_drawn(tmp_path, toy_recipe):
    out = tmp_path / "out"
    assert main(["train", str(toy_recipe), "--run", "TowardsLoss", "--out", str(out)]) == 0
    marker = files.read_marker(trained.folder(out, "TowardsLoss"))
    assert marker["objective"]["num_updates"] == 8
    assert marker["passes"] == {"trained": 48, "measured": 0, "scored": 0}  # seen after the step: no pass is added
    weights = dict(zip(("code", "junk", "prose"), marker["objective"]["weights"], strict=True))
    assert sum(weights.values()) == pytest.approx(1)
    assert sum(marker["rows"].values()) == 48
    history = files.read_json(trained.folder(out, "TowardsLoss") / "history.json")
    assert history[-1]["sampling_weights/code"] == pytest.approx(weights["code"])


@pytest.mark.slow
def test_killed_while_the_policy_moves_it_ends_the_same(tmp_path, toy_recipe):
    """With reading ahead: what was read for other weights is neither lost nor drawn twice."""
    settings = ["--set", "training.reading=ahead", "--set", "training.steps=40"]
    command = ["train", str(toy_recipe), "--run", "TowardsLoss", *settings, "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    killed = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-m", "doremi", *command, str(killed)], stderr=subprocess.DEVNULL)
    while not list(killed.glob("runs/TowardsLoss-*/checkpoint-4/complete.json")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main([*command, str(killed)]) == 0
    markers = [files.read_marker(trained.folder(out, "TowardsLoss")) for out in (tmp_path / "whole", killed)]
    assert markers[0]["objective"] == markers[1]["objective"]
    assert markers[0]["rows"] == markers[1]["rows"]
    models = [trained.folder(out, "TowardsLoss") / "model.safetensors" for out in (tmp_path / "whole", killed)]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_whoever_only_looks_at_a_run_directory_runs_none_of_its_code(tmp_path, toy_recipe, monkeypatch):
    monkeypatch.delitem(sys.modules, toys.__name__)
    sys.modules.pop("tests.end_to_end.toys", None)
    from doremi.experiment import recipe

    loaded = recipe.load(toy_recipe)
    assert [item.label for item in loaded.named_methods] == LABELS
    assert "tests.end_to_end.toys" not in sys.modules


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("no_such_module:X", "methods.1: no_such_module:X: No module named 'no_such_module'; is it installed"),
        ("tests.end_to_end.toys:Missing", "has no attribute 'Missing'"),
        ("tests.end_to_end.toys:State", "methods.1: tests.end_to_end.toys:State:"),
        ({"tests.end_to_end.toys:Harder": {"sharp": 1}}, "unexpected keyword argument 'sharp'"),
    ],
)
def test_a_class_that_cannot_be_used_is_refused_at_once(tmp_path, capsys, toy_recipe, method, message):
    content = yaml.safe_load(toy_recipe.read_text()) | {"methods": ["natural", method]}
    toy_recipe.write_text(yaml.safe_dump(content))
    assert main(["run", str(toy_recipe), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
