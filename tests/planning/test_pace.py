"""Hours from a device's peak, or from timed steps."""

from __future__ import annotations

import itertools

import pytest

from doremi.errors import InputError
from doremi.experiment import recipe
from doremi.models.size import measure
from doremi.planning import devices, measurement
from doremi.planning.devices import DEVICES, Device
from doremi.planning.pace import AssumedPace, MeasuredPace
from tests.planning.recipes import ROWS, forward, make, planned


def test_a_share_of_the_peak():
    pace = AssumedPace("x", Device(1000.0, 80, "paper"), 0.5, num_devices=4)
    main = planned(make())["natural"]
    assert pace.seconds(main) == ROWS * 3 * forward("main") / 2000
    assert pace.seconds_for(4000) == 2
    assert pace.describe() == "4 × x at 50% of 0 TFLOP/s (paper)"
    for utilisation in (0, 1.1, -1):
        with pytest.raises(InputError, match=r"--mfu .*above 0 and at most 1"):
            AssumedPace("x", DEVICES["h200"], utilisation, 1)


def test_devices():
    assert devices.find("H100-SXM").peak_flops == 989e12
    assert devices.find("a100-40gb")[:2] == (312e12, 40)
    assert all(device.source and 1e14 < device.peak_flops < 1e16 for device in DEVICES.values())
    with pytest.raises(InputError, match=r"--device cpu: not known; there are h100-sxm, .*--measure"):
        devices.find("cpu")


def timed(stages, *values):
    return dict(zip((stages[name].kind for name in ("reference", "proxy", "natural")), values, strict=True))


def test_timed_steps():
    stages = planned(make(doremi={"seeds": 3}))
    pace = MeasuredPace(timed(stages, 1, 2, 4), timed(stages, 10, 20, 100), 2, "here")
    assert pace.seconds(stages["proxy"]) == 3 * ROWS * 2 / 2
    assert pace.seconds_for(500) == 10  # at main's 25 FLOP/s on each of two
    assert "2 × here" in pace.describe()


@pytest.fixture
def tiny():
    small = {"preset": "tiny", "overrides": {"hidden_size": 16, "intermediate_size": 24}}
    return recipe.parse(
        {
            "corpus": {"inputs": [{"path": "x"}], "tokenizer": {"vocab_size": 300}},
            "models": {"reference": small, "proxy": small, "main": small},
            "training": {"steps": 1000, "sequence_length": 16, "global_batch_size": 16, "micro_batch_size": 4,
                         "num_threads": 1, "overrides": {"main": {"micro_batch_size": 16}}},
        }
    )  # fmt: skip


def measured(recipe):
    """Sizes of its models, and stages by name."""
    sizes = {
        run: measure(getattr(recipe.models, run), name=run, sequence_length=16, vocab_size=300)
        for run in ("reference", "proxy", "main")
    }
    return sizes, planned(recipe, sizes=sizes)


def test_measuring(tiny, monkeypatch):
    """Steps end at 0, 5, 5 + 1, 5 + 1 + 3, ...: the median after the first is what counts."""
    sizes, stages = measured(tiny)
    ends = [0.0, 1.0, 4.0, 6.0]
    times = itertools.cycle(ends)
    monkeypatch.setattr(measurement.time, "perf_counter", lambda: next(times))
    pace = measurement.measure(tiny, stages.values(), sizes, store=None, num_devices=1)
    # intervals 1, 3, 2; 8 rows (two of four micro-batches of 4), or the whole batch in one
    assert pace.seconds_per_row == timed(stages, 2 / 8, 2 / 8, 2 / 16)
    row = sizes["proxy"].forward_flops(16)
    assert pace.flops_per_row == timed(stages, 3 * row, 5 * row, 3 * row)
    assert "this CPU" in pace.where


def test_measuring_takes_the_steps_that_it_says(tiny, monkeypatch):
    clocks = []
    original = measurement._Clock.__init__
    monkeypatch.setattr(measurement._Clock, "__init__", lambda self: (original(self), clocks.append(self))[0])
    same = tiny.model_copy(update={"training": tiny.training.model_copy(update={"overrides": {}})})
    sizes, stages = measured(same)
    pace = measurement.measure(same, stages.values(), sizes, store=None, num_devices=4)
    assert [len(clock.ends) for clock in clocks] == [4, 4]  # main is the reference's own run
    assert stages["natural"].kind == stages["reference"].kind
    assert pace.seconds_per_row[stages["natural"].kind] > 0
    row = sizes["proxy"].forward_flops(16)
    assert (
        pace.flops_per_row[stages["proxy"].kind] == 4 * row
    )  # one micro-batch on each of 4: measured and trained at once
