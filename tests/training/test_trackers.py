"""α, ᾱ, λ and losses of every domain reach the trackers, where each model of a run directory is a run of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from types import SimpleNamespace

import pytest
from transformers.integrations.integration_utils import CometCallback, SwanLabCallback

from doremi.cli.main import main
from doremi.errors import InputError
from doremi.training import trackers
from tests import trained
from tests.end_to_end.conftest import write_corpus, write_recipe
from tests.processes import ROOT, environment
from tests.training import wandb_files
from tests.training.test_interruption import Send, make_trainer
from tests.training.test_trainer import STORE, train

KEYS = [
    f"train/{quantity}/{name}"
    for quantity in ("dro_weights", "average_weights", "excess_losses", "train_nats")
    for name in STORE.names
]
OFFLINE = """
import signal, sys
from pathlib import Path
from doremi.training import trackers
from tests.training.test_interruption import Send, make_trainer

def train(name, *callbacks):
    folder = Path(sys.argv[1]) / name
    trainer = make_trainer(folder, *callbacks, steps=10, run_name=name, report_to=["wandb"])
    with trackers.recording(trainer, group="mine", folder=folder):
        trainer.train(resume_from_checkpoint=True)

train("reference")
try:
    train("proxy", Send(signal.SIGTERM, step=7))
except KeyboardInterrupt:
    train("proxy")
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_the_values_of_the_log(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trainer = train(tmp_path / "run", steps=10, report_to=["tensorboard"])
    events = EventAccumulator(str(next((tmp_path / "events").rglob("events.*")).parent))
    events.Reload()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in log] == [5, 10]
    for key in KEYS:
        values = [(event.step, event.value) for event in events.Scalars(key)]
        expected = [(entry["step"], pytest.approx(entry[key.removeprefix("train/")])) for entry in log]
        assert values == expected


@pytest.mark.slow  # the same with tensorboard is not
def test_each_model_is_a_run_of_wandb_that_a_resumed_one_continues(tmp_path):
    settings = environment() | {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    command = [sys.executable, "-c", OFFLINE, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    recorded = [wandb_files.read(path) for path in (tmp_path / "wandb").glob("offline-run-*/*.wandb")]
    assert len(recorded) == 3  # offline, a part that was interrupted is a file of its own
    steps = {}
    for (identity, group, name), history in sorted(recorded, key=lambda item: item[1][0]["train/global_step"]):
        assert group == "mine"
        losses = [line for line in history if "train/loss" in line]
        assert all(key in line for key in KEYS for line in losses)
        steps.setdefault((name, identity), []).append([line["train/global_step"] for line in losses])
    assert {name: parts for (name, _), parts in steps.items()} == {
        "mine/reference": [[5, 10]],
        "mine/proxy": [[5, 7], [10]],
    }
    assert len(steps) == 2


def test_a_model_that_is_trained_anew_is_another_run_of_wandb(tmp_path):
    first = trackers._identity(tmp_path)
    assert trackers._identity(tmp_path) == first
    (tmp_path / trackers.IDENTITY).unlink()
    assert trackers._identity(tmp_path) != first
    (tmp_path / trackers.IDENTITY).write_text("[]")
    with pytest.raises(InputError, match=r'tracker\.json: expected {"wandb": id}; delete it'):
        trackers._identity(tmp_path)


@pytest.mark.parametrize("is_chosen", [False, True])
def test_each_model_has_a_folder_of_tensorboard_that_a_resumed_one_writes_to(tmp_path, monkeypatch, is_chosen):
    if is_chosen:
        monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    for name, callbacks in (("proxy", [Send(15, step=7)]), ("proxy", []), ("main, seed 1", [])):
        trainer = make_trainer(tmp_path / name, *callbacks, steps=10, run_name=name, report_to=["tensorboard"])
        with contextlib.suppress(KeyboardInterrupt), trackers.recording(trainer, group="a", folder=tmp_path / name):
            trainer.train(resume_from_checkpoint=True)
        assert trainer.args.run_name == name
    found = {path.parent for path in tmp_path.rglob("events.out*")}
    places = (
        ["events/a/proxy", "events/a/main, seed 1"] if is_chosen else ["proxy/tensorboard", "main, seed 1/tensorboard"]
    )
    assert found == {tmp_path / place for place in places}


@pytest.mark.parametrize("fails", [False, True])
def test_runs_that_would_go_on_with_the_next_model_are_ended(tmp_path, monkeypatch, fails):
    ended = []
    monkeypatch.setitem(sys.modules, "swanlab", SimpleNamespace(finish=lambda: ended.append("swanlab")))
    comet, swanlab = CometCallback.__new__(CometCallback), SwanLabCallback.__new__(SwanLabCallback)
    comet._experiment = SimpleNamespace(end=lambda: ended.append("comet"))
    trainer = SimpleNamespace(
        args=SimpleNamespace(run_name="main"), callback_handler=SimpleNamespace(callbacks=[comet, swanlab])
    )
    with contextlib.suppress(ZeroDivisionError), trackers.recording(trainer, group="mine", folder=tmp_path):
        assert trainer.args.run_name == "mine/main"
        assert ended == []
        assert not (fails and 1 / 0)
    assert sorted(ended) == ["comet", "swanlab"]
    assert trainer.args.run_name == "main"


def test_a_process_that_is_not_the_first_has_no_run(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import fails
    trainer = make_trainer(tmp_path, steps=1)
    monkeypatch.setattr(trackers, "_callbacks", lambda trainer: {"wandb": None})
    with trackers.recording(trainer, group="mine", folder=tmp_path):
        pass
    assert not (tmp_path / trackers.IDENTITY).exists()


@pytest.mark.parametrize(
    ("report_to", "message"),
    [
        ("wandb", "wandb needs the package wandb, which is not installed; install it, or leave wandb out"),
        ("[tensorboard, wandb]", "wandb needs the package wandb, which is not installed"),
        ("mlflow", "mlflow needs the package mlflow, which is"),
        ("azure_ml", "azure_ml needs the package azureml, which is"),
        ("weights_and_biases", "weights_and_biases is not supported, only azure_ml, comet_ml"),
        ("3", "expected the name of a tracker, such as wandb, or a list of names; got 3"),
        ("[[wandb]]", "or a list of names; got"),
    ],
)
def test_a_tracker_that_cannot_record_is_refused_before_anything_is_prepared(
    tmp_path, monkeypatch, capsys, report_to, message
):
    for module in ("wandb", "mlflow", "azureml"):
        monkeypatch.setitem(sys.modules, module, None)
    write_corpus(tmp_path)
    command = ["run", str(write_recipe(tmp_path)), "--out", str(tmp_path / "out")]
    assert main([*command, "--set", f"training.arguments={{report_to: {report_to}}}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("doremi: training.arguments.report_to: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_wandb_without_a_login_is_refused_before_anything_is_prepared(tmp_path, monkeypatch):
    """The same where its key is wrong; offline and disabled it needs none."""
    import wandb

    def login():
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "login", login)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(
        InputError, match=r"W&B: No API key configured\. Use `wandb login` to log in; or set WANDB_MODE"
    ):
        trackers.log_in({"report_to": "wandb"})
    monkeypatch.setenv("WANDB_MODE", "offline")
    trackers.log_in({"report_to": "wandb"})
    trackers.log_in({"report_to": "none"})
    trackers.log_in({"report_to": None})
    trackers.log_in({})


def test_the_models_of_a_run_directory_are_named_after_it(tmp_path):
    """Through the command line: the name and the folder reach the tracker; `run_name` takes the recipe's place."""
    write_corpus(tmp_path)
    recipe = write_recipe(tmp_path, steps=2, arguments={"report_to": "tensorboard", "run_name": "exp 7"})
    names = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trackers, "_events", lambda folder, *name: names.append((folder, *name)) or folder / "events")
        assert main(["train", str(recipe), "--run", "reference", "--out", str(tmp_path / "first")]) == 0
        override = ["--set", "training.arguments={report_to: tensorboard}"]
        assert main(["train", str(recipe), "--run", "reference", "--out", str(tmp_path / "second"), *override]) == 0
    assert names == [
        (trained.folder(tmp_path / "first", "reference"), "exp 7", "reference"),
        (trained.folder(tmp_path / "second", "reference"), "second", "reference"),
    ]


def test_no_name_leads_out_of_the_chosen_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path))
    assert trackers._events(tmp_path, "..", "../x/y") == tmp_path / "%2E%2E" / "..%2Fx%2Fy"
    assert trackers._events(tmp_path, "a.b", "main, seed 1") == tmp_path / "a.b" / "main, seed 1"
