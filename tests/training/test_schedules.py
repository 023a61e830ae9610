"""Learning-rate schedules at their knots."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi.errors import InputError
from doremi.training.schedules import DECAYS, LearningRateSchedule


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
        ("linear", 120, 0.1),  # past the end
        ("wsd", 3, 0.5),
        ("wsd", 6, 1.0),
        ("wsd", 53, 1.0),
        ("wsd", 80, 1.0),  # the last step of the stable phase
        ("wsd", 81, 1 - 0.9 / 20),
        ("wsd", 90, 0.55),
        ("wsd", 100, 0.1),
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


@pytest.mark.parametrize(
    ("decay_fraction", "warmup_steps", "step", "expected"),
    [
        (0.5, 6, 50, 1.0),
        (0.5, 6, 75, 0.5),
        (1.0, 0, 25, 0.75),  # all of the run: a linear decay
        (0.5, 60, 60, 1.0),  # warm-up leaves 40 steps of the 50
        (0.5, 60, 80, 0.5),
        (0.001, 6, 99, 1.0),  # shorter than a step: only the last one is at the end value
        (0.001, 6, 100, 0.0),
    ],
)
def test_the_decay_of_wsd_takes_the_given_share_of_all_steps(decay_fraction, warmup_steps, step, expected):
    schedule = LearningRateSchedule("wsd", 0.0, decay_fraction=decay_fraction)
    assert schedule.factor(step, num_steps=100, warmup_steps=warmup_steps) == pytest.approx(expected, abs=1e-12)


def test_only_wsd_has_a_stable_phase():
    for decay in set(DECAYS) - {"wsd"}:
        factors = {
            LearningRateSchedule(decay, 0.1, decay_fraction=fraction).factor(50, num_steps=100, warmup_steps=6)
            for fraction in (0.1, 0.2, 1.0)
        }
        assert len(factors) == 1


def test_an_end_value_equal_to_the_peak_and_no_warm_up_are_legal():
    for decay in DECAYS:
        schedule = LearningRateSchedule(decay, 1.0)
        assert [schedule.factor(step, num_steps=10, warmup_steps=0) for step in range(1, 11)] == [1.0] * 10
    assert LearningRateSchedule("linear", 0.0).factor(1, num_steps=1, warmup_steps=1) == 1.0


@settings(derandomize=True, max_examples=100)
@given(
    st.sampled_from(sorted(set(DECAYS) - {"constant"})),
    st.floats(0.001, 1),
    st.floats(0.001, 1),
    st.integers(1, 60),
    st.integers(0, 59),
)
def test_a_run_rises_to_the_peak_then_never_rises_again_and_ends_at_the_end_value(
    decay, end, decay_fraction, num_steps, warmup_steps
):
    schedule = LearningRateSchedule(decay, end, decay_fraction=decay_fraction)
    warmup_steps = min(warmup_steps, num_steps - 1)
    factors = [
        schedule.factor(step, num_steps=num_steps, warmup_steps=warmup_steps) for step in range(1, num_steps + 1)
    ]
    peak = max(warmup_steps, 1) - 1
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == pytest.approx(sorted(factors[peak:], reverse=True), rel=1e-12)
    assert factors[-1] == pytest.approx(end, rel=1e-12)
    assert warmup_steps == 0 or factors[peak] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("wds", 0.1), "'wds': it must be one of cosine, exponential, linear, wsd, constant"),
        (("linear", 1.5), "ends at 1.5 of its peak; it must be from 0 to 1"),
        (("linear", -0.1), "ends at -0.1 of its peak"),
        (("linear", float("nan")), "ends at nan of its peak"),
        (("exponential", 0.0), "never reaches 0: give an end above it"),
        (("wsd", 0.1, 0.0), "decay_fraction is 0; it must be above 0 and at most 1"),
        (("wsd", 0.1, 1.1), "decay_fraction is 1.1"),
    ],
)
def test_what_makes_no_schedule_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        LearningRateSchedule(*arguments)
