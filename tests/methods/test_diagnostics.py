"""Each alarm with a case that raises it and one that does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from doremi.methods import alarms as diagnostics
from doremi.weights import published


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
    assert "lower doremi.step_size" in alarm.remedy
    two_of_five = {"a": 0.7, "b": 0.297, "c": 0.001, "d": 0.001, "e": 0.001}
    assert names_of(diagnostics.check_collapse(two_of_five)) == ["collapse"]
    one_of_many = {"web": 0.76} | {f"d{index}": 0.01 for index in range(24)}
    assert diagnostics.effective_number(one_of_many) > 3
    assert names_of(diagnostics.check_collapse(one_of_many)) == ["collapse"]
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
    assert late[:2] == (31, 40)
    np.testing.assert_allclose(late.mean, weights[30:].mean(axis=0), rtol=1e-12)
    coarse = diagnostics.last_quarter({step: averages(weights)[step] for step in (5, 20, 31, 40)})
    assert coarse[:2] == (21, 40)
    np.testing.assert_allclose(coarse.mean, weights[20:].mean(axis=0), rtol=1e-12)
    assert diagnostics.last_quarter({}) is None
    assert diagnostics.last_quarter({40: weights.mean(axis=0)}) is None


def test_drift():
    steady = np.tile([0.5, 0.3, 0.2], (40, 1))
    assert not names_of(diagnostics.check_drift(("a", "b", "c"), averages(steady)))
    moved = steady.copy()
    moved[30:] = [0.3, 0.49, 0.21]
    (alarm,) = diagnostics.check_drift(("a", "b", "c"), averages(moved))
    assert alarm.name == "drift"
    assert alarm.finding == (
        "in steps 31 to 40 the weights differ from their average over all steps by 0.15 in total variation; most of "
        "all 'a', 0.300 against 0.450"
    )
    assert "doremi.tail_fraction" in alarm.remedy
    moved[30:] = [0.5, 0.43, 0.07]  # 0.13 from the rest, which is three quarters of that from the average
    assert not names_of(diagnostics.check_drift(("a", "b", "c"), averages(moved)))


def starvation(*, answer, reference_weights, gaps):
    nats = dict.fromkeys(gaps, 3.0)
    return list(
        diagnostics.check_starvation(
            answer,
            reference_weights,
            reference_nats={name: nats[name] + gap for name, gap in gaps.items()},
            uniform_nats=nats,
        )
    )


def test_starvation():
    lost, gained = {"web": 0.9, "tiny": 0.1}, {"web": 0.8, "tiny": 0.2}
    (alarm,) = starvation(answer=lost, reference_weights=gained, gaps={"web": -0.4, "tiny": 0.8})
    assert alarm.name == "starvation"
    assert alarm.finding == (
        "1 of 2 domains lost weight though the reference is worse at them than a model trained on uniform weights: "
        "'tiny' 0.80 nats per token (0.2000 to 0.1000)"
    )
    assert "doremi.min_weight" in alarm.remedy
    assert not starvation(answer=lost, reference_weights=gained, gaps={"web": -0.4, "tiny": 0.05})  # as good as any
    assert not starvation(answer=gained, reference_weights=lost, gaps={"web": -0.4, "tiny": 0.8})
    assert not starvation(answer=lost, reference_weights=lost, gaps={"web": 0.8, "tiny": 0.8})
    assert starvation(answer={"web": 1.0}, reference_weights=gained, gaps={"web": 0.0, "tiny": 0.8})


def test_many_starved_domains_are_one_alarm_that_names_the_worst():
    names = [f"d{index:03}" for index in range(200)]
    answer = dict.fromkeys(names, 0.0005) | {"web": 0.9}
    reference_weights = dict.fromkeys(names, 0.004) | {"web": 0.2}
    gaps = {name: 0.11 + 0.01 * index for index, name in enumerate(names)} | {"web": 5.0}
    (alarm,) = starvation(answer=answer, reference_weights=reference_weights, gaps=gaps)
    assert alarm.finding.startswith("200 of 201 domains lost weight")
    assert alarm.finding.endswith(
        ": 'd199' 2.10 nats per token (0.0040 to 0.0005), 'd198' 2.09 nats per token (0.0040 to 0.0005), "
        "'d197' 2.08 nats per token (0.0040 to 0.0005), 'd196' 2.07 nats per token (0.0040 to 0.0005), "
        "'d195' 2.06 nats per token (0.0040 to 0.0005), and 195 more"
    )


def test_repetition():
    (alarm,) = diagnostics.check_repetition({"web": 0.5, "small": 4.5, "tiny": 12.0}, max_epochs=4)
    assert alarm.name == "repetition"
    assert alarm.finding == (
        "the main run would see 2 of 3 domains more than 4 times: 'tiny' 12.0 times, 'small' 4.5 times"
    )
    assert "doremi.max_main_epochs" in alarm.remedy
    assert not names_of(diagnostics.check_repetition({"web": 4.0}, max_epochs=4))


@pytest.mark.parametrize(("count", "end"), [(5, "'a' 6.0 times"), (6, "'b' 7.0 times, and 1 more")])
def test_many_repeated_domains_are_one_alarm_that_names_the_worst(count, end):
    epochs = {name: 6.0 + index for index, name in enumerate("abcdef"[:count])}
    (alarm,) = diagnostics.check_repetition(epochs, max_epochs=4)
    assert alarm.finding.endswith(end)


def test_batch():
    (alarm,) = diagnostics.check_batch(8, 22)
    assert alarm.name == "batch"
    assert "8 rows for 22 domains" in alarm.finding
    assert alarm.remedy == "raise training.global_batch_size to 22 or more"
    assert not names_of(diagnostics.check_batch(22, 22))
