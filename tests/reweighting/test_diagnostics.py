"""Each alarm with a case that raises it and one that does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from doremi import published
from doremi.reweighting import diagnostics


def names_of(alarms):
    return [alarm.name for alarm in alarms]


def test_effective_number_and_total_variation_by_hand():
    assert diagnostics.effective_number(dict.fromkeys("abcd", 0.25)) == pytest.approx(4)
    assert diagnostics.effective_number({"a": 1.0, "b": 0.0}) == 1
    assert diagnostics.effective_number({"a": 0.5, "b": 0.25, "c": 0.25}) == pytest.approx(2 * math.sqrt(2))
    assert diagnostics.total_variation({"a": 0.5, "b": 0.5}, {"a": 0.2, "c": 0.8}) == pytest.approx(0.8)


def test_collapse():
    (alarm,) = diagnostics.check_collapse({"web": 0.8, "code": 0.1, "books": 0.1})
    assert alarm.finding == "0.80 of the weight is on 'web'; the effective number of domains is 1.9 of 3"
    assert "lower reweighting.step_size" in alarm.remedy
    two_of_five = {"a": 0.7, "b": 0.297, "c": 0.001, "d": 0.001, "e": 0.001}
    assert names_of(diagnostics.check_collapse(two_of_five)) == ["collapse"]
    assert not names_of(diagnostics.check_collapse({"web": 0.7, "code": 0.2, "books": 0.1}))
    assert not names_of(diagnostics.check_collapse({"web": 0.9, "code": 0.1}))  # of two domains one is always large


def test_the_papers_weights_raise_no_collapse():
    weights = published.load("paper-280m").weights
    assert diagnostics.effective_number(weights) == pytest.approx(5.125, abs=1e-3)
    assert not names_of(diagnostics.check_collapse(weights))


def averages(weights):
    """{step: ᾱ} after every step, from α[T, k]."""
    return {step: weights[:step].mean(axis=0) for step in range(1, len(weights) + 1)}


def test_the_last_quarter_is_recovered_from_averages():
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=40)
    late = diagnostics.last_quarter({step: value for step, value in averages(weights).items() if step % 10 == 0})
    np.testing.assert_allclose(late, weights[30:].mean(axis=0), rtol=1e-12)
    assert diagnostics.last_quarter({}) is None
    assert diagnostics.last_quarter({40: weights.mean(axis=0)}) is None


def test_drift():
    steady = np.tile([0.5, 0.3, 0.2], (40, 1))
    assert not names_of(diagnostics.check_drift(("a", "b", "c"), averages(steady)))
    moved = steady.copy()
    moved[30:] = [0.3, 0.49, 0.21]
    (alarm,) = diagnostics.check_drift(("a", "b", "c"), averages(moved))
    assert alarm.name == "drift"
    assert "differ from their average by 0.15" in alarm.finding
    assert "'a', 0.300 against 0.450" in alarm.finding


def test_starvation():
    weights, reference_weights = {"web": 0.9, "tiny": 0.1}, {"web": 0.8, "tiny": 0.2}
    reference_nats = {"web": 3.0, "tiny": 5.0}

    def check(uniform_nats, answer=weights):
        return list(
            diagnostics.check_starvation(
                answer, reference_weights, reference_nats=reference_nats, uniform_nats=uniform_nats
            )
        )

    (alarm,) = check({"web": 3.4, "tiny": 4.2})
    assert "'tiny' went from 0.2000 to 0.1000, and the reference is 0.80 nats per token worse" in alarm.finding
    assert not check({"web": 3.4, "tiny": 4.95})  # the reference is as good as any
    assert not check({"web": 3.4, "tiny": 4.2}, {"web": 0.7, "tiny": 0.3})  # it gained weight


def test_repetition():
    (alarm,) = diagnostics.check_repetition({"web": 0.5, "tiny": 12.0, "small": 4.5}, max_epochs=4)
    assert alarm.finding == "the main run would see 2 domains more than 4 times: 'tiny' 12.0, 'small' 4.5"
    assert not names_of(diagnostics.check_repetition({"web": 4.0}, max_epochs=4))


def test_batch():
    assert names_of(diagnostics.check_batch(8, 22)) == ["batch"]
    assert not names_of(diagnostics.check_batch(22, 22))
