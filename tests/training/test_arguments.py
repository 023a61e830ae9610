"""The recipe's training section as transformers takes it."""

from __future__ import annotations

import pytest

from doremi.training import arguments
from doremi.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("steps", "fraction", "expected"),
    [
        (200_000, 0.06, 12_000),  # the paper's
        (100, 0.061, 7),
        (30, 0.05, 2),  # 1.5, and halves have no even neighbour to fall to
        (50, 0.05, 3),  # 2.5
        (10, 0.001, 1),
        (10, 0.0, 0),
        (10, 0.95, 10),
    ],
)
def test_warm_up_takes_whole_steps_and_no_less_than_its_share(tmp_path, steps, fraction, expected):
    config = TrainingConfig(steps=steps, warmup_fraction=fraction)
    made = arguments.training_arguments(config, folder=tmp_path, seed=0, name="x")
    assert made.warmup_steps == expected
    assert made.get_warmup_steps(steps) == expected
