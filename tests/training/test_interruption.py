"""SIGTERM and Ctrl-C during training: real signals, one process and two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from doremi.errors import RunFailedError
from doremi.training import checkpoints, distributed
from doremi.training.interruption import SIGNALS, Interruption
from doremi.training.schedules import LearningRateSchedule
from doremi.training.signals import ExcessLoss
from doremi.training.trainer import DoReMiTrainer
from tests.processes import ROOT, environment
from tests.training.fakes import arguments, parameters, tiny_model
from tests.training.test_trainer import MIXTURE, STORE

SETTINGS = {"steps": 15, "save_total_limit": 10}


class Send(TrainerCallback):
    """Sends signals to this very process in the middle of a step, or at another event."""

    def __init__(self, *signals, step=7, event="on_pre_optimizer_step"):
        self.signals, self.step = signals, step
        setattr(self, event, self.send)

    def send(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            for number in self.signals:
                os.kill(os.getpid(), number)


def make_trainer(folder, *callbacks, cls=DoReMiTrainer, objective=None, **settings):
    return cls(
        tiny_model(1),
        objective=objective or ExcessLoss(tiny_model(2), names=STORE.names),
        corpus=STORE,
        args=arguments(folder, **SETTINGS | settings),
        mixture=MIXTURE,
        learning_rate_schedule=LearningRateSchedule("cosine", 0.05),
        callbacks=list(callbacks),
    )


@pytest.fixture(autouse=True)
def handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize(("number", "accumulation"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_the_step_is_finished_and_saved_and_the_run_continues_bit_identically(tmp_path, capfd, number, accumulation):
    settings = {"micro_batch": 8 // accumulation, "accumulation": accumulation}
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    trainer = make_trainer(tmp_path / "cut", Send(number), **settings)
    with pytest.raises(KeyboardInterrupt, match=rf"^interrupted by {number.name}, step 7 is saved$"):
        trainer.train()
    assert "finishing this step and saving it; Ctrl-C once more stops at once" in capfd.readouterr().err
    assert trainer.objective.dro.num_updates == 7
    assert checkpoints.steps(tmp_path / "cut") == [5, 7]
    assert checkpoints.newest_complete(tmp_path / "cut") == 7
    resumed = make_trainer(tmp_path / "cut", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert torch.equal(parameters(resumed.model), parameters(whole.model))
    np.testing.assert_array_equal(resumed.objective.dro.average_weights, whole.objective.dro.average_weights)
    assert resumed.loader.state_dict() == whole.loader.state_dict()
    # the losses of steps 6 and 7 are not lost
    assert [entry["step"] for entry in resumed.state.log_history if "loss" in entry] == [5, 7, 10, 15]


def test_a_second_sigterm_changes_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="SIGTERM, step 7 is saved"):
        make_trainer(tmp_path, Send(signal.SIGTERM, signal.SIGTERM)).train()
    assert checkpoints.newest_complete(tmp_path) == 7


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_stops_at_once(tmp_path, first):
    trainer = make_trainer(tmp_path, Send(first, signal.SIGINT))
    before = []
    trainer.add_callback(Recorder(trainer, before))
    with pytest.raises(KeyboardInterrupt, match="interrupted twice, stopped at once"):
        trainer.train()
    assert checkpoints.steps(tmp_path) == [5]
    assert torch.equal(parameters(trainer.model), before[6])  # the optimizer step was not taken


class Recorder(TrainerCallback):
    def __init__(self, trainer, into):
        self.trainer, self.into = trainer, into

    def on_step_begin(self, args, state, control, **kwargs):
        self.into.append(parameters(self.trainer.model).clone())


class InterruptedWhileSaving(DoReMiTrainer):
    def _save_rng_state(self, output_dir):
        if self.state.global_step == 7:
            assert (Path(output_dir) / "optimizer.pt").exists()
            os.kill(os.getpid(), signal.SIGINT)
        super()._save_rng_state(output_dir)


def test_a_second_ctrl_c_while_saving_leaves_no_half_written_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="interrupted twice"):
        make_trainer(tmp_path, Send(signal.SIGINT), cls=InterruptedWhileSaving).train()
    assert checkpoints.steps(tmp_path) == [5]


def test_a_signal_after_the_last_step_is_not_lost(tmp_path):
    trainer = make_trainer(tmp_path, Send(signal.SIGTERM, step=16, event="on_train_end"))
    with pytest.raises(KeyboardInterrupt, match=r"^interrupted by SIGTERM$"):
        trainer.train()
    assert checkpoints.newest_complete(tmp_path) == 15


def test_an_error_is_not_hidden_by_a_signal_that_came_before_it(tmp_path):
    trainer = make_trainer(tmp_path, Send(signal.SIGTERM))
    trainer.add_callback(Spoil())
    with pytest.raises(RunFailedError, match="step 8"):
        trainer.train()
    assert checkpoints.newest_complete(tmp_path) == 5


class Spoil(TrainerCallback):
    """Makes a parameter NaN before the optimizer step that was to be the last, and prevents the stop after it."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 7:
            control.should_training_stop = control.should_save = False
            with torch.no_grad():
                model.lm_head.weight.fill_(float("nan"))


def test_a_trainer_that_was_interrupted_can_train_on(tmp_path):
    trainer = make_trainer(tmp_path, Send(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 15


@contextmanager
def handler(number, action):
    old = signal.signal(number, action)
    try:
        yield
    finally:
        signal.signal(number, old)


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As Ctrl-C is for a job that a shell script started in the background."""
    trainer = make_trainer(tmp_path, Send(signal.SIGINT))
    with handler(signal.SIGINT, signal.SIG_IGN):
        trainer.train()
    assert trainer.state.global_step == 15


def test_training_outside_the_main_thread_leaves_signals_alone(tmp_path):
    trainer = make_trainer(tmp_path, steps=5)
    thread = threading.Thread(target=trainer.train)
    thread.start()
    thread.join()
    assert trainer.state.global_step == 5


def test_the_flag_travels_with_the_sums_and_does_not_touch_them(monkeypatch):
    """Two ranks, one signal, between two reductions: both agree at the second one, on the same sums."""
    ranks = [Interruption(), Interruption()]
    monkeypatch.setattr(distributed, "world_size", lambda: 2)

    def reduce_all(sums):
        sent = []
        monkeypatch.setattr(distributed, "all_reduce_sum", lambda tensor: sent.append(tensor.clone()) or tensor)
        for rank, own in zip(ranks, sums, strict=True):
            rank.all_reduce_sum(own)
        monkeypatch.setattr(distributed, "all_reduce_sum", lambda tensor: sent[0] + sent[1])
        return [rank.all_reduce_sum(own) for rank, own in zip(ranks, sums, strict=True)]

    sums = [torch.arange(6.0, dtype=torch.float64).view(2, 3), torch.full((2, 3), 0.1, dtype=torch.float64)]
    for received in (False, True):
        if received:
            ranks[1]._received = signal.SIGTERM
        for total in reduce_all(sums):
            torch.testing.assert_close(total, sums[0] + sums[1], rtol=0, atol=0)
        for rank in ranks:
            control = type("Control", (), {"should_training_stop": False})()
            rank.on_step_end(None, type("State", (), {"global_step": 3})(), control)
            assert control.should_training_stop == received


WORKER = """
import os, signal, sys, torch
from pathlib import Path
from tests.training.fakes import parameters
from tests.training.test_interruption import Send, make_trainer
from doremi.errors import RunFailedError
from doremi.training import trainer as trainer_module
from doremi.training.signals import TokenMean

folder = Path(sys.argv[1])
settings = {"micro_batch": 4, "accumulation": 1}
whole = make_trainer(folder / "whole", **settings)
whole.train()
rank = whole.args.process_index
# rank 1 is told in the middle of step 7, after that step's reduction; rank 0 never
callbacks = [Send(signal.SIGTERM)] if rank == 1 else []
trainer = make_trainer(folder / "cut", *callbacks, **settings)
try:
    trainer.train()
except KeyboardInterrupt as interrupt:
    message = str(interrupt)
resumed = make_trainer(folder / "cut", **settings)
resumed.train(resume_from_checkpoint=True)
same = torch.equal(parameters(resumed.model), parameters(whole.model))
(folder / f"interrupted-{rank}").write_text(f"{message}; {trainer.state.global_step}; {same}")

# a loss on rank 1 is infinite, of a plain run: its gradient alone would not show that to rank 0
token_losses = trainer_module.token_losses

def spoiled(model, batch):
    losses = token_losses(model, batch)
    return losses._replace(nats=losses.nats + torch.where(batch["domain_ids"] == 0, torch.inf, 0.0)[:, None])

if rank == 1:
    trainer_module.token_losses = spoiled
plain = make_trainer(folder / "plain", objective=TokenMean("abc"), **settings)
try:
    plain.train()
except RunFailedError as error:
    (folder / f"failed-{rank}").write_text(str(error))
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_stop_together_although_one_was_told_and_although_one_met_an_infinite_loss(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(tmp_path / "worker.py")]
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "interrupted-0").read_text() == "interrupted, step 8 is saved; 8; True"
    assert (tmp_path / "interrupted-1").read_text() == "interrupted by SIGTERM, step 8 is saved; 8; True"
    message = (tmp_path / "failed-0").read_text()
    assert message.startswith("step 1: the gradient norm is nan, the loss of 'a' is not finite; stopped before")
    assert (tmp_path / "failed-1").read_text() == message
