"""A trainer killed at random moments: after every restart it trains exactly the rows that were not yet trained on."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from doremi.mixture import MixtureSchedule
from tests.processes import ROOT, environment
from tests.training.fakes import SEQUENCE_LENGTH, InMemoryStore

STEPS, SAVE_STEPS, MICRO_BATCH, ACCUMULATION, SEED = 100, 4, 3, 2, 3
WORKER = """
import json, sys, time
from tests.training import fakes, test_killed
from tests.training.test_trainer import MIXTURE
from doremi.training.signals import TokenMean
from doremi.training.trainer import DoReMiTrainer

class Recording(DoReMiTrainer):
    def compute_loss(self, model, inputs, *rest, **settings):
        rows = list(zip(inputs["domain_ids"].tolist(), inputs["rows"].tolist()))
        with open(sys.argv[2], "a") as log:  # one write: a line is there whole or not at all
            log.write(json.dumps([self.state.global_step + 1, rows]) + "\\n")
        time.sleep(0.005)
        return super().compute_loss(model, inputs, *rest, **settings)

store = fakes.InMemoryStore()
arguments = fakes.arguments(sys.argv[1], micro_batch=test_killed.MICRO_BATCH, accumulation=test_killed.ACCUMULATION,
                            steps=test_killed.STEPS, save_steps=test_killed.SAVE_STEPS, seed=test_killed.SEED,
                            data_seed=test_killed.SEED)
trainer = Recording(fakes.tiny_model(), objective=TokenMean(store.names), corpus=store, args=arguments, mixture=MIXTURE)
trainer.train(resume_from_checkpoint=True)
"""


@pytest.mark.slow
def test_resumed_runs_train_on_every_row_exactly_once(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    attempts = []
    for number, lines_before_kill in enumerate([*random.Random(0).choices(range(10, 45), k=4), None]):
        log = tmp_path / f"log-{number}"
        run_until(tmp_path, log, lines_before_kill)
        attempts.append([json.loads(line) for line in log.read_text().splitlines()])
    # what the surviving parameters were trained on: of each attempt the steps before the one that the next began at
    trained = []
    for attempt, following in zip(attempts, [*attempts[1:], [[STEPS + 1]]], strict=True):
        trained += [entry for entry in attempt if entry[0] < following[0][0]]
    assert len({attempt[0][0] for attempt in attempts}) == len(attempts)  # every restart went on further ahead
    assert all((attempt[0][0] - 1) % SAVE_STEPS == 0 for attempt in attempts)
    assert trained == undisturbed()


def run_until(folder, log, num_lines):
    """Run the worker; kill it once its log has ``num_lines`` lines, or let it finish."""
    command = [sys.executable, str(folder / "worker.py"), str(folder / "run"), str(log)]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=output, stdout=output)
        if num_lines is not None:
            while not log.exists() or log.read_text().count("\n") < num_lines:
                assert process.poll() is None, (folder / "output").read_text()[-2000:]
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        code = process.wait(timeout=200)
    assert code == (0 if num_lines is None else -signal.SIGKILL), (folder / "output").read_text()[-2000:]


def undisturbed():
    """[step, rows] of every micro-batch, from the schedule alone."""
    store = InMemoryStore()
    counts = {name: store.num_sequences(name, SEQUENCE_LENGTH) for name in store.names}
    schedule = MixtureSchedule(
        counts,
        weights={name: store.num_tokens(name) for name in store.names},
        global_batch_size=MICRO_BATCH * ACCUMULATION,
        seed=SEED,
    )
    expected = []
    for step in range(1, STEPS + 1):
        batch = schedule.next_batch()
        rows = [list(pair) for pair in zip(batch.domain_ids.tolist(), batch.rows.tolist(), strict=True)]
        expected += [[step, rows[first : first + MICRO_BATCH]] for first in range(0, len(rows), MICRO_BATCH)]
    return expected
