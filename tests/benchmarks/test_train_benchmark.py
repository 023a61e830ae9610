"""The training benchmark runs whole, without the packages that a GPU machine may lack. Nothing timed is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainerControl

from benchmarks import train_part, train_report, train_sizes, train_steps, train_turns

ROOT = Path(__file__).parents[2]
MISSING_THERE = ("pydantic", "datasets", "zstandard", "hatchling", "plotly", "fastokens")
MEASURE_ALL = f"""
import json, sys, tempfile
from pathlib import Path

class Without:
    "A finder that does not know some packages, as if they were not installed."
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {MISSING_THERE} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]

import torch
from benchmarks import train_part, train_sizes
from benchmarks.train_setup import Setting

with tempfile.TemporaryDirectory() as folder:
    setting = Setting(train_sizes.SIZES["tiny"], torch.device("cpu"), Path(folder))
    parts = {{name: train_part.measure(name, setting) for name in train_part.PARTS}}
parts["whole_batch"]["environment"] = train_part.environment(setting.device)
parts["imported"] = [name for name in {MISSING_THERE} if name in sys.modules]
print(json.dumps(parts))
"""


@pytest.fixture(scope="module")
def parts():
    command = [sys.executable, "-W", "ignore", "-c", MEASURE_ALL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_part_runs_without_the_packages_of_other_stages(parts):
    assert set(parts) == {*train_part.PARTS, "imported"}
    assert parts["imported"] == []


def test_the_report_has_what_was_asked_for(parts):
    # in one process, the second to be measured finds the peak of the first
    peaks = {"memory_ours": {"bytes": 1}, "memory_full": {"bytes": 2}}
    report = train_report.summarise(parts | peaks, train_sizes.SIZES["tiny"])
    for name in (
        *train_report.TARGETS,
        "proxy_over_plain_delayed",
        "proxy_over_plain_accumulated",
        "tokens_per_second",
    ):
        assert report[name] > 0
    json.dumps(report, allow_nan=False)
    assert all(name in train_report.table(report) for name in train_report.TARGETS)


# ---- figures, by hand ----


def a_report(**changes):
    whole, split = (
        {name: [(3.0, 2.0), (5.0, 2.0), (8.0, 2.0)] for name in names}
        for names in (train_steps.WHOLE_BATCH, train_steps.MICRO_BATCHES)
    )
    bookkeeping = {str(k): {"tokens_per_step": 640, "seconds": [(0.3, 0.1), (0.5, 0.1), (0.9, 0.1)]} for k in (3, 5)}
    parts = {
        "whole_batch": {"seconds": whole, "clock": "sundial", "environment": {"is_gpu": False} | changes},
        "micro_batches": {"seconds": split},
        "losses": {"seconds": [(1.0, 2.0), (1.0, 4.0)], "max_difference_nats": 0.0},
        "memory_ours": {"bytes": 3},
        "memory_full": {"bytes": 12},
        "bookkeeping": bookkeeping,
    }
    return train_report.summarise(parts, train_sizes.SIZES["tiny"])


def test_ratios_are_medians_over_pairs():
    report = a_report()
    assert report["proxy_over_plain"] == 2.5
    assert report["quartiles"]["proxy_over_plain"] == [2.0, 3.25]  # of 1.5, 2.5 and 4
    assert report["token_loss_time_ratio"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert report["token_loss_memory_ratio"] == 0.25
    assert report["tokens_per_second"] == 4 * 16 / 2
    assert "mfu_plain" not in report


def test_bookkeeping_is_what_a_step_without_models_takes_over_a_step_with_them():
    # 640 tokens are ten steps of 64, of 2 seconds each; the median difference is 0.4 seconds
    assert a_report()["bookkeeping_fraction"] == pytest.approx(0.4 / 20)


def test_mfu_counts_six_flops_a_parameter_and_a_third_more_for_the_reference():
    report, sizes = a_report(is_gpu=True), train_sizes.SIZES["tiny"]
    matmuls = 2 * (4 * 64**2 + 2 * 64 * 96) + 131 * 64
    flops = 64 * (6 * matmuls + 12 * 2 * 64 * 16)
    assert sizes.tokens_per_step * sizes.training_flops_per_token == flops
    assert report["mfu_plain"] == pytest.approx(flops / 2 / 989e12)
    assert report["mfu_proxy"] == pytest.approx(flops * 4 / 3 / 5 / 989e12)


def test_the_model_on_a_gpu_is_the_124m_body():
    assert train_sizes.SIZES["gpu"].matmul_parameters == 12 * 12 * 768**2 + 50_304 * 768 == 123_568_128


# ---- taking turns ----


class Recorder:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def take(self, num_steps):
        self.log.append((self.name, num_steps))
        return {"a": 6.0, "b": 3.0}[self.name]


def test_pairs_follow_one_another_and_each_goes_first_by_turns():
    log = []
    runs = {name: Recorder(name, log) for name in "ab"}
    seconds = train_turns.interleave(runs, [("a", "b")], rounds=2, steps_per_turn=3)
    assert log == [("a", 3), ("b", 3), ("b", 3), ("a", 3)]
    assert seconds == {("a", "b"): [(2.0, 1.0), (2.0, 1.0)]}


class Loop:
    """The part of a trainer that a run needs: it calls back after every step until it is told to stop."""

    def __init__(self, fails_at=None):
        self.num_steps, self.fails_at, self.callback, self.control = 0, fails_at, None, TrainerControl()

    def add_callback(self, callback):
        self.callback = callback

    def train(self):
        while not self.control.should_training_stop:
            self.num_steps += 1
            if self.num_steps == self.fails_at:
                raise ArithmeticError("step 3 failed")
            self.callback.on_step_end(None, None, self.control)


def test_a_run_stands_still_between_turns_and_ends_when_told():
    loop, ticks = Loop(), iter(range(100))
    run = train_turns.TrainerRun(loop, lambda: next(ticks))
    assert loop.num_steps == 0
    assert run.take(2) == 1  # the clock is read twice a turn
    assert loop.num_steps == 2
    run.take(5)
    assert loop.num_steps == 7
    run.stop()
    with pytest.raises(RuntimeError, match="the run has ended"):
        run.take(1)
    assert loop.num_steps == 7


def test_what_a_run_raises_reaches_whoever_waits_for_it():
    run = train_turns.TrainerRun(Loop(fails_at=3), lambda: 0)
    run.take(2)
    with pytest.raises(ArithmeticError, match="step 3 failed"):
        run.take(1)
