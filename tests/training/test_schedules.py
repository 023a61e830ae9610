"""Learning-rate schedules at their knots."""

import pytest

from doremi.training.schedules import LearningRateSchedule


@pytest.mark.parametrize(
    ("decay", "step", "expected"),
    [
        ("cosine", 3, 0.5),  # half of the warm-up of 6
        ("cosine", 6, 1.0),
        ("cosine", 53, 0.55),  # the middle of the decay: (1 + .1) / 2
        ("cosine", 100, 0.1),
        ("exponential", 6, 1.0),
        ("exponential", 53, 0.1**0.5),
        ("exponential", 100, 0.1),
        ("linear", 53, 0.55),
        ("linear", 100, 0.1),
        ("constant", 6, 1.0),
        ("constant", 100, 1.0),
    ],
)
def test_knots(decay, step, expected):
    schedule = LearningRateSchedule(decay, 0.1)
    assert schedule.factor(step, num_steps=100, warmup_steps=6) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("fraction", "expected"), [(0.25, 5.6e-4), (0.5, 3.2e-4), (1.0, 1e-4)])
def test_the_papers_exponential_decay(fraction, expected):
    step = 12_000 + round(fraction * 188_000)
    factor = LearningRateSchedule("exponential", 0.1).factor(step, num_steps=200_000, warmup_steps=12_000)
    assert 1e-3 * factor == pytest.approx(expected, rel=0.02)


def test_an_end_value_equal_to_the_peak_and_no_warm_up_are_legal():
    for decay in ("cosine", "exponential", "linear"):
        assert LearningRateSchedule(decay, 1.0).factor(7, num_steps=10, warmup_steps=0) == 1.0
    assert LearningRateSchedule("linear", 0.0).factor(1, num_steps=1, warmup_steps=1) == 1.0
