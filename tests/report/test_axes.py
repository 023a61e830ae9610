import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi.report.axes import LinearAxis, LogAxis, SignedAxis

WEIGHTS = st.lists(st.floats(1e-9, 1), min_size=1)


@pytest.mark.parametrize(
    ("largest", "labels"),
    [
        (1.0, ["0%", "25%", "50%", "75%", "100%"]),
        (0.41, ["0%", "20%", "40%", "60%"]),
        (0.4, ["0%", "10%", "20%", "30%", "40%"]),
        (0.0071, ["0%", "0.2%", "0.4%", "0.6%", "0.8%"]),
    ],
)
def test_linear_axis_has_round_ticks(largest, labels):
    axis = LinearAxis.covering([largest, largest / 7])
    assert [tick.label for tick in axis.ticks] == labels


def test_linear_positions():
    axis = LinearAxis.covering([0.4])
    assert (axis.position(0.1), axis.position(0.4), axis.position(None)) == (pytest.approx(0.25), pytest.approx(1), 0)


def test_log_axis_has_a_tick_for_every_power_of_ten():
    axis = LogAxis.covering([0.0004, 0.3])
    assert [tick.label for tick in axis.ticks] == ["0.01%", "0.1%", "1%", "10%", "100%"]
    assert axis.position(0.01) == pytest.approx(0.5)


def test_log_axis_puts_zero_at_its_left_end():
    axis = LogAxis.covering([0.0, 0.2, 0.01])
    assert (axis.position(0.0), axis.position(None), axis.position(0.01)) == (0, 0, pytest.approx(0))


@pytest.mark.parametrize("axis_class", [LinearAxis, LogAxis])
@settings(derandomize=True)
@given(weights=WEIGHTS)
def test_every_weight_is_on_the_axis_and_in_order(axis_class, weights):
    axis = axis_class.covering(weights)
    positions = [axis.position(weight) for weight in sorted(weights)]
    assert positions == sorted(positions)
    assert -1e-9 <= positions[0] <= positions[-1] <= 1 + 1e-9
    ticks = [tick.position for tick in axis.ticks]
    assert ticks == pytest.approx([i / axis.intervals for i in range(axis.intervals + 1)])


@pytest.mark.parametrize("axis_class", [LinearAxis, LogAxis])
@pytest.mark.parametrize("weights", [[], [0.0]])
def test_an_axis_without_weights_ends_at_all_tokens(axis_class, weights):
    assert axis_class.covering(weights).ticks[-1].label == "100%"


def test_signed_axis_has_round_ticks_around_zero():
    axis = SignedAxis.covering([-0.11, 0.02], ends=[-0.13, 0.04])
    assert [tick.label for tick in axis.ticks] == ["-0.15", "-0.1", "-0.05", "0", "+0.05", "+0.1", "+0.15"]
    assert [axis.position(d) for d in (-0.15, 0.0, 0.075)] == pytest.approx([0, 0.5, 0.75])


def test_signed_axis_leaves_out_the_widest_tenth_of_the_intervals():
    narrow = [0.1] * 9
    assert SignedAxis.covering([0.05], ends=[*narrow, 50.0]).end == pytest.approx(0.1)
    assert SignedAxis.covering([0.05], ends=[*narrow[1:], 50.0, 50.0]).end == pytest.approx(60.0)
    assert SignedAxis.covering([50.0], ends=narrow).end == pytest.approx(60.0)  # but no value
    assert SignedAxis.covering([0.05], ends=[*narrow, 50.0]).position(-50.0) == 0


def test_signed_axis_of_no_difference():
    assert SignedAxis.covering([0.0]).end == SignedAxis.covering([]).end == pytest.approx(1.0)


@settings(derandomize=True)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_every_difference_is_on_the_signed_axis_and_in_order(values):
    axis = SignedAxis.covering(values)
    positions = [axis.position(value) for value in sorted(values)]
    assert positions == sorted(positions)
    assert max(map(abs, values)) <= axis.end * (1 + 1e-6)
