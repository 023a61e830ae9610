"""α, ᾱ, λ and losses of every domain reach the trackers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT, environment
from tests.training.test_trainer import STORE, train

KEYS = [
    f"train/{quantity}/{name}"
    for quantity in ("dro_weights", "average_weights", "excess_losses", "train_nats")
    for name in STORE.names
]
OFFLINE = """
import sys
from tests.training.test_trainer import train
train(sys.argv[1], steps=10, report_to=["wandb"])
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


def test_wandb_offline(tmp_path):
    settings = environment() | {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "WANDB_SILENT": "true",
    }
    command = [sys.executable, "-c", OFFLINE, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (recorded,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    content = recorded.read_bytes()
    assert all(key.encode() in content for key in KEYS)
