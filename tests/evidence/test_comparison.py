"""Summaries and steps to match, worked out by hand."""

from __future__ import annotations

import pytest

from doremi.evidence import comparison
from doremi.experiment.held_out_curve import curve_from_log


def test_summaries():
    found = comparison.summarise({"a": 1.0, "b": 4.0}, {"a": 0.6, "b": 0.2, "left out": 0.2})
    assert found.uniform_mean == 2.5
    assert found.reference_mean == pytest.approx((0.6 * 1 + 0.2 * 4) / 0.8)
    assert (found.worst, found.worst_domain) == (4.0, "b")


@pytest.mark.parametrize(
    ("target", "expected"),
    [(3.0, 150.0), (2.5, 200.0), (4.0, 100.0), (5.0, 100.0), (2.4, None), (2.75, 175.0)],
)
def test_steps_to_match_is_linear_between_evaluations(target, expected):
    assert comparison.steps_to_match([100, 200, 300], [3.5, 2.5, 2.6], target) == expected


def test_a_curve_counts_a_step_that_was_repeated_after_a_kill_once():
    log = [
        {"step": 10, "held_out_nats/a": 3.0, "held_out_nats/b": 4.0},
        {"step": 10, "loss": 1.0},
        {"step": 20, "held_out_nats/a": 2.5, "held_out_nats/b": 3.5},
        {"step": 20, "held_out_nats/a": 2.5, "held_out_nats/b": 3.5},
    ]
    assert curve_from_log(log, ["a", "b"]) == {"steps": [10, 20], "nats": {"a": [3.0, 2.5], "b": [4.0, 3.5]}}
