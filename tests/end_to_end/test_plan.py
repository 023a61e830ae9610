"""A plan against what a finished run left: epochs, parameters, tokens, files. And its command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from doremi import files
from doremi.cli.main import main
from doremi.training.reference_cache import MANIFEST, NATS
from doremi.training.sparse_rows import SparseRows, complete, row_size
from tests.end_to_end.conftest import write_corpus, write_recipe

SETTINGS = [
    "training.steps=20",
    "training.sequence_length=128",
    "training.max_epochs=0.145",
    "training.on_max_epochs=renormalise",
    "methods=[natural, {doremi: {seeds: 2, reference_cache: true}}, uniform]",
    "verify.seeds=2",
    "models.main={preset: tiny, overrides: {hidden_size: 32}}",
]
NUM_MODELS = {"reference": 1, "proxy": 2, "natural": 2, "doremi": 2, "uniform": 2}


def folders(out):
    """Folders of the models of each stage."""
    return {name: sorted((out / "runs").glob(f"{name}-*")) for name in NUM_MODELS}


def arguments(recipe, out):
    return [str(recipe), "--out", str(out), *(part for setting in SETTINGS for part in ("--set", setting))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The recipe, its run directory, and the plan when all is there."""
    folder = tmp_path_factory.mktemp("planned")
    write_corpus(folder)
    recipe, out = write_recipe(folder), folder / "out"
    assert main(["search", *arguments(recipe, out)]) == 0
    for name in ("natural", "doremi", "uniform"):
        assert main(["train", "--run", name, *arguments(recipe, out)]) == 0
    return recipe, out


def plan(capsys, recipe, out, *flags):
    capsys.readouterr()
    assert main(["plan", *arguments(recipe, out), "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.filterwarnings("ignore")
def test_stages(capsys, finished):
    recipe, out = finished
    planned = {stage["name"]: stage for stage in plan(capsys, recipe, out)["stages"]}
    assert {name: stage["num_models"] for name, stage in planned.items()} == NUM_MODELS
    for name, runs in folders(out).items():
        stage = planned[name]
        markers = [files.read_marker(folder) for folder in runs]
        assert len(markers) == NUM_MODELS[name]
        for marker in markers:
            assert marker["num_parameters"] == stage["num_parameters"]
            assert marker["num_tokens"] == stage["num_tokens"]
            # of 120 rows; a domain of 261 or more is left out up to a batch of 6 early; the loader may be 2 off
            assert stage["epochs"] == pytest.approx(marker["epochs"], abs=8 / 261)
    assert max(planned["proxy"]["epochs"].values()) == pytest.approx(0.145)  # one domain is at its limit


def test_without_a_limit_epochs_agree_within_a_row_or_two(capsys, finished, tmp_path):
    recipe, _ = finished
    settings = ["--set", "training.sequence_length=128", "--set", "training.steps=100"]  # two thirds of an epoch
    out = tmp_path / "out"
    assert main(["train", str(recipe), "--run", "reference", "--out", str(out), *settings]) == 0
    capsys.readouterr()
    assert main(["plan", str(recipe), "--out", str(out), "--json", *settings]) == 0
    reference = json.loads(capsys.readouterr().out)["stages"][0]
    (folder,) = (out / "runs").glob("reference-*")
    marker = files.read_marker(folder)["epochs"]
    assert reference["epochs"] == pytest.approx(marker, abs=1.5 / 261)


def test_disk(capsys, finished):
    recipe, out = finished
    disk = plan(capsys, recipe, out)["disk_bytes"]
    runs = [folder for found in folders(out).values() for folder in found]
    models = sum((run / "model.safetensors").stat().st_size for run in runs)
    saved = [checkpoint for run in runs for checkpoint in run.glob("checkpoint-*")]
    assert len(saved) == 2 * len(runs)
    states = sum((path / name).stat().st_size for path in saved for name in ("model.safetensors", "optimizer.pt"))
    # the models have some 20,000 parameters: headers of safetensors and of torch's archive are a part of them
    assert disk["models"] == pytest.approx(models, rel=0.1)
    assert disk["checkpoints"] == pytest.approx(states, rel=0.15)
    assert disk["corpus"] == sum(path.stat().st_size for path in (out / "corpus").rglob("*") if path.is_file())


def test_reference_losses(capsys, finished):
    """Two proxies, each with an order of its own, ask for fewer rows than twice what one asks for."""
    recipe, out = finished
    (cache,) = (out / "reference_losses").iterdir()
    content = json.loads((cache / MANIFEST).read_text())
    num_rows = sum(content["row_counts"].values())
    stored = SparseRows(cache / NATS, num_rows=num_rows, num_values=127, dtype="float32")
    num_there = int(complete(stored.read(np.arange(num_rows))).sum())
    planned = plan(capsys, recipe, out)["disk_bytes"]["reference_losses"] / row_size(127, "float32")
    assert planned == pytest.approx(num_there, rel=0.02)
    assert num_there < 0.98 * 240


def test_times_and_money(capsys, finished):
    recipe, out = finished
    found = plan(capsys, recipe, out, "--device", "a100-80gb", "--devices", "2", "--mfu", "0.5", "--price", "3")
    assert found["total_hours"] * 3600 == pytest.approx(found["total_flops"] / (312e12 * 0.5 * 2))
    assert found["usd"] == pytest.approx(found["total_hours"] * 2 * 3)
    assert found["total_flops"] == pytest.approx(
        sum(stage["flops"] for stage in found["stages"]) + found["held_out"]["flops"]
    )
    assert found["total_flops"] == pytest.approx(
        found["search_flops"] + found["verification_flops"] + found["held_out"]["flops"]
    )
    assert found["hours"]["doremi"] == pytest.approx(found["stages"][3]["flops"] / (312e12 * 0.5 * 2) / 3600)


def test_held_out_text_that_is_scored(capsys, finished):
    """20 steps are scored at 10 and 20, every model; the 6 compared ones once more at the end: 500 tokens a domain."""
    recipe, out = finished
    found = plan(capsys, recipe, out)
    assert found["held_out"]["num_tokens"] == (9 * 2 + 6) * 3 * 500


def test_table(capsys, finished):
    recipe, out = finished
    capsys.readouterr()
    assert main(["plan", *arguments(recipe, out), "--device", "h100-sxm", "--price", "2.5"]) == 0
    table = capsys.readouterr().out
    header, *rows = table.splitlines()[1:]
    named = [row.split()[:2] for row in rows]
    assert header.split() == [
        "models",
        "parameters",
        "tokens",
        "each",
        "FLOPs",
        "of",
        "a",
        "main",
        "run",
        "hours",
        "USD",
    ]
    stages = [["train", name] for name in NUM_MODELS]
    assert named[:2] + named[3:6] == stages
    assert [first for first, _ in (named[2], named[6], named[7], named[8])] == [
        "search",
        "verification",
        "score",
        "all",
    ]
    assert "989 TFLOP/s (NVIDIA H100 datasheet" in table
    assert "Doubts" in table
    assert "tokens a parameter, below 20" in table


def test_measured_on_this_machine(capsys, finished):
    recipe, out = finished
    found = plan(capsys, recipe, out, "--measure")
    assert "this CPU" in found["pace"]
    assert all(hours > 0 for hours in found["hours"].values())
    assert found["total_hours"] > sum(found["hours"].values())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "cpu"], "--device cpu: not known; there are h100-sxm"),
        (["--price", "2"], "--price: for how many hours"),
        (["--price", "0", "--device", "h200"], "--price 0: it must be above 0"),
        (["--price", "inf", "--device", "h200"], "--price inf: it must be above 0, and finite"),
        (["--mfu", "0", "--device", "h200"], "--mfu 0: it must be above 0"),
        (["--mfu", "0.3"], "--mfu: of which peak? Give --device NAME"),
        (["--devices", "0"], "--devices 0: at least 1"),
        (["--devices", "5"], "training.global_batch_size is 6, not a multiple of the 5 processes; use 5 or 10"),
        (["--devices", "8"], "not a multiple of the 8 processes; use 8\n"),
        (["--mfu", "40", "--device", "h200"], "--mfu 40: it must be above 0 and at most 1"),
    ],
)
def test_mistakes(capsys, finished, flags, message):
    recipe, out = finished
    assert main(["plan", *arguments(recipe, out), *flags]) == 2
    assert message in capsys.readouterr().err
