"""Rounds of DoReMi on sources with a known behaviour."""

from __future__ import annotations

import numpy as np
import pytest

from doremi.methods import group_dro
from doremi.methods.rounds import judge

NAMES = ("web", "code", "books")


def as_mapping(weights):
    return dict(zip(NAMES, weights, strict=True))


def run_rounds(answer_of, *, max_rounds=12, tolerance=1e-3, stop_early=True):
    """Rounds from uniform weights with ``answer_of(reference weights) → weights``; the progress at the end."""
    history = [np.full(3, 1 / 3)]
    while True:
        history.append(answer_of(history[-1]))
        told = judge(
            [as_mapping(weights) for weights in history],
            tolerance=tolerance,
            max_rounds=max_rounds,
            stop_early=stop_early,
        )
        if told.is_over:
            return told, history


def proxy_answer(reference_weights, *, gain):
    """Group DRO against constant excess losses that depend on what the reference was trained on: less where it had
    more, so that there is a fixed point; ``gain`` is how strongly.
    """
    target = np.array([0.5, 0.3, 0.2])
    excess = np.maximum(0.5 - gain * (reference_weights - target), 0)
    state = group_dro.init(NAMES, step_size=1e-4 * 50)
    for _ in range(200):
        state = group_dro.update(state, excess_sums=excess * 1000, token_counts=[1000] * 3)
    return state.average_weights


def test_a_source_with_a_stable_fixed_point_converges_and_stops():
    told, history = run_rounds(lambda weights: proxy_answer(weights, gain=0.5))
    assert told.status == "converged"
    assert 2 <= len(told.changes) < 12
    assert told.changes[-1] < 1e-3 <= told.changes[-2]
    assert told.warning is None
    assert np.abs(proxy_answer(history[-1], gain=0.5) - history[-1]).max() < 1e-3  # a fixed point indeed


def test_a_source_made_to_oscillate_says_so():
    told, _ = run_rounds(lambda weights: proxy_answer(weights, gain=20))
    assert told.status == "oscillating"
    assert len(told.changes) == 12
    assert "the weights do not settle" in told.warning


def test_one_that_creeps_is_stopped_at_the_maximum_without_a_warning():
    told, _ = run_rounds(lambda weights: weights + 0.7 * (np.array([0.6, 0.3, 0.1]) - weights), max_rounds=3)
    assert told.status == "stopped at the maximum"
    assert told.changes == pytest.approx([0.7 * 0.8 / 3, 0.21 * 0.8 / 3, 0.063 * 0.8 / 3])
    assert told.warning is None


def test_a_fixed_number_of_rounds_is_run_though_converged():
    told, history = run_rounds(lambda weights: weights, max_rounds=3, stop_early=False)
    assert len(history) == 4
    assert told.status == "converged"


def test_a_domain_that_appears_or_vanishes_is_a_change_of_its_whole_weight():
    told = judge([{"a": 0.4, "b": 0.6}, {"b": 0.7, "c": 0.3}], tolerance=1e-3, max_rounds=5, stop_early=True)
    assert told.changes == pytest.approx((0.4,))
    assert (told.is_over, told.status) == (False, None)


def last_rounds(*answers, start=(0.4, 0.4, 0.2)):
    history = [as_mapping(weights) for weights in (start, *answers)]
    return judge(history, tolerance=1e-3, max_rounds=len(answers), stop_early=False)


def test_there_and_back_by_less_and_less_is_no_oscillation():
    """Changes of 0.1, then 0.085 back."""
    told = last_rounds((0.5, 0.3, 0.2), (0.415, 0.385, 0.2))
    assert (told.status, told.warning) == ("stopped at the maximum", None)
    told = last_rounds((0.5, 0.3, 0.2), (0.405, 0.395, 0.2))  # by 0.095
    assert told.status == "oscillating"
    assert "0.1000, 0.0950" in told.warning


def test_going_on_in_one_direction_is_no_oscillation_but_a_warning():
    told = last_rounds((0.5, 0.3, 0.2), (0.6, 0.2, 0.2))
    assert told.status == "stopped at the maximum"
    assert "the largest change of each round is 0.1000, 0.1000. Train the proxy longer" in told.warning


def test_only_the_last_round_decides_whether_it_converged():
    told = last_rounds((0.4001, 0.3999, 0.2), (0.4006, 0.3994, 0.2))  # growing, and below the tolerance
    assert (told.status, told.warning) == ("converged", None)
    assert last_rounds((0.4001, 0.3999, 0.2), (0.45, 0.35, 0.2)).status == "stopped at the maximum"
