"""`doremi loader inspect`: what it announces is what the runs then draw."""

from __future__ import annotations

import json

import pytest

from doremi import files
from doremi.cli.main import main
from tests import trained


@pytest.fixture
def inspect(tmp_path, capsys, recipe):
    def run(*arguments):
        if not (tmp_path / "out").exists():
            assert main(["prepare", str(recipe), "--out", str(tmp_path / "out")]) == 0
            capsys.readouterr()
        code = main(["loader", "inspect", str(recipe), "--out", str(tmp_path / "out"), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_forecast_of_a_run_is_what_it_drew(tmp_path, capsys, recipe, inspect):
    code, stdout, _ = inspect("--json")
    assert code == 0
    told = json.loads(stdout)
    assert (told["num_steps"], told["num_rows"]) == (30, 180)
    assert main(["train", str(recipe), "--run", "reference", "--out", str(tmp_path / "out")]) == 0
    marker = files.read_marker(trained.folder(tmp_path / "out", "reference"))
    assert {domain["name"]: domain["epochs"] for domain in told["domains"]} == marker["epochs"]


def test_the_table(inspect):
    code, stdout, _ = inspect("--run", "proxy", "--steps", "500", "--set", "training.max_epochs=0.5")
    assert code == 0
    lines = stdout.splitlines()
    assert lines[0] == "3,000 rows in 500 steps"
    junk = next(line for line in lines if line.startswith("junk")).split()
    assert junk[1:4] == ["0.3333", "1,000.0", "1,000"]
    assert float(junk[5]) == pytest.approx(1000 / int(junk[4].replace(",", "")), abs=0.005)
    assert lines[-1].startswith("beyond 0.5 epochs: ")
    assert "junk" in lines[-1]


def test_steps_below_one_and_runs_without_weights_are_refused(tmp_path, inspect):
    code, _, stderr = inspect("--steps", "0")
    assert code == 2
    assert "the number of steps to inspect is 0" in stderr
    code, _, stderr = inspect("--run", "doremi")
    assert code == 2
    assert "run `doremi search` with the same recipe and --out first" in stderr
    mine = "methods=[natural, {weights: {prose: 3, code: 1}, label: mine}, doremi]"
    code, stdout, _ = inspect("--run", "mine", "--steps", "10", "--json", "--set", mine)
    assert code == 0
    assert [domain["drawn_rows"] for domain in json.loads(stdout)["domains"]] == [15, 0, 45]  # code, junk, prose


def test_the_limit_on_epochs_reaches_the_runs(tmp_path, capsys, recipe):
    arguments = ["--set", "training.max_epochs=0.01", "--set", "training.on_max_epochs=error"]
    code = main(["train", str(recipe), "--run", "reference", "--out", str(tmp_path / "out"), *arguments])
    assert code == 1
    assert "goes beyond 0.01 epochs" in capsys.readouterr().err
