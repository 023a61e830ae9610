"""DoReMi as a method: rounds, seeds and alarms with proxies whose answers are made up; nothing is trained."""

from __future__ import annotations

import dataclasses
import itertools
import random

import numpy as np
import pytest

from doremi.errors import RunFailedError
from doremi.methods import group_dro
from doremi.methods.doremi import DoReMi
from doremi.methods.protocol import Method, Outcome, Scoring
from tests.methods import made_up

NAMES = ("web", "code", "books")
START = made_up.PRIOR
FIXED = np.array([0.4, 0.35, 0.25])


class Proxies:
    """Stands in for training: proxies give ``answer_of(reference weights, seed)``.

    Args:
        answer_of: float64[3] from float64[3] and a seed.
        early: the average as logged after three quarters of the steps; absent: the answer, so that nothing drifts.
        failing: labels of runs that fail.
    """

    def __init__(self, answer_of, *, early=None, failing=()):
        self.answer_of, self.early, self.failing = answer_of, early, failing

    def outcome(self, run):
        if run.label in self.failing:
            return Outcome(run, failure="step 3: the gradient norm is nan")
        if run.policy is None:
            return Outcome(run)
        reference = START if run.reference is None else run.reference.weights
        found = self.answer_of(np.array([reference[name] for name in NAMES]), run.seed)
        state = group_dro.init(NAMES).to_dict() | {"num_updates": 4, "weights_sum": (4 * found).tolist()}
        averages = {3: found if self.early is None else np.array(self.early), 4: found}
        history = [
            {"step": step} | {f"average_weights/{name}": value for name, value in zip(NAMES, values, strict=True)}
            for step, values in averages.items()
        ]
        return Outcome(
            run, state=group_dro.GroupDROState.from_dict(state), history=[{"step": 2, "loss": 3.0}, *history]
        )


def find(proxies, *, shuffled=None, bench=None, **options):
    """The answer, its facts, and the labels in the order in which they were asked for."""
    method, bench = DoReMi(**options), bench or made_up.bench()
    done, labels = [], []
    while asked := method.ask(bench, done):
        labels += [run.label for run in asked]
        done += [proxies.outcome(run) for run in asked]
        if shuffled is not None:
            shuffled.shuffle(done)
    answer = method.answer(bench, done)
    return answer, answer.facts, labels


def around(fixed_point, *, gain):
    """Each round ends at ``gain`` times the distance of its reference from the fixed point."""
    return lambda reference, seed: fixed_point + gain * (reference - fixed_point)


def test_it_is_a_method():
    assert isinstance(DoReMi(), Method)


def test_auto_stops_where_nothing_changes_any_more():
    answer, facts, labels = find(Proxies(around(FIXED, gain=0.1)), rounds="auto", max_rounds=9)
    assert facts["rounds"]["status"] == "converged"
    assert facts["rounds"]["changes"] == pytest.approx([0.09, 0.009, 0.0009])
    assert list(answer.weights.values()) == pytest.approx(FIXED + 0.001 * (np.array([*START.values()]) - FIXED))
    assert labels == [
        "reference", "proxy", "reference, round 2", "proxy, round 2", "reference, round 3", "proxy, round 3"
    ]  # fmt: skip
    assert facts["rounds"]["weights"][-1] == dict(answer.weights)


def test_the_reference_of_a_round_is_trained_on_the_answer_of_the_one_before():
    method, bench, proxies = DoReMi(rounds=2), made_up.bench(), Proxies(around(FIXED, gain=0.5))
    (first,) = method.ask(bench, [])
    assert (first.size, first.weights, first.policy, first.reference) == ("reference", bench.prior, None, None)
    done = [proxies.outcome(first)]
    (proxy,) = method.ask(bench, done)
    assert (proxy.size, proxy.reference, proxy.policy) == ("proxy", first, method.policy(bench))
    assert proxy.weights == pytest.approx(dict.fromkeys(NAMES, 1 / 3))
    done.append(proxies.outcome(proxy))
    (second,) = method.ask(bench, done)
    assert second.weights == pytest.approx({"web": 0.45, "code": 0.325, "books": 0.225})


@pytest.mark.parametrize("seed", range(3))
def test_nothing_depends_on_the_order_of_the_outcomes(seed):
    options = {"rounds": 3, "seeds": 3}
    straight = find(Proxies(around(FIXED, gain=0.5)), **options)
    shuffled = find(Proxies(around(FIXED, gain=0.5)), shuffled=random.Random(seed), **options)
    assert straight == shuffled


def test_oscillating_weights_are_an_alarm():
    answer, facts, _ = find(Proxies(around(FIXED, gain=-0.98)), rounds="auto", max_rounds=4)
    assert facts["rounds"]["status"] == "oscillating"
    assert len(facts["rounds"]["changes"]) == 4
    (alarm,) = answer.alarms
    assert alarm.name == "rounds"
    assert alarm.finding == (
        "the weights do not settle: the largest change of each round is 0.1980, 0.1940, 0.1902, 0.1864"
    )
    assert "average several proxies (doremi.seeds)" in alarm.remedy


def test_a_fixed_number_of_rounds_is_run_to_its_end():
    _, facts, labels = find(Proxies(around(FIXED, gain=0.0)), rounds=3, seeds=2, max_rounds=2, tolerance=1e-4)
    # the reference of round 3 is trained on what that of round 2 was: equal runs are asked for once
    assert labels == [
        "reference", "proxy", "proxy, seed 1", "reference, round 2", "proxy, round 2", "proxy, round 2, seed 1"
    ]  # fmt: skip
    assert facts["rounds"]["changes"] == pytest.approx([0.1, 0, 0], abs=1e-15)
    assert facts["rounds"]["status"] == "converged"


def test_a_wider_tolerance_ends_the_rounds_earlier():
    _, facts, _ = find(Proxies(around(FIXED, gain=0.1)), rounds="auto", tolerance=0.01)
    assert len(facts["rounds"]["changes"]) == 2


def test_the_answer_is_the_mean_over_proxies_and_the_spread_their_standard_deviation():
    """0.1, 0.2 and 0.6 of web: mean 0.3, standard deviation √0.07."""
    web = {5: 0.1, 6: 0.2, 7: 0.6}
    proxies = Proxies(lambda _, seed: np.array([web[seed], 0.9 - web[seed], 0.1]))
    answer, facts, labels = find(proxies, seeds=3, bench=made_up.bench(seed=5))
    assert dict(answer.weights) == pytest.approx({"web": 0.3, "code": 0.6, "books": 0.1}, abs=1e-15)
    assert facts["spread"] == pytest.approx({"web": 0.07**0.5, "code": 0.07**0.5, "books": 0}, abs=1e-15)
    assert {seed: weights["web"] for seed, weights in facts["by_seed"].items()} == pytest.approx(
        {"5": 0.1, "6": 0.2, "7": 0.6}
    )
    assert labels == ["reference", "proxy", "proxy, seed 6", "proxy, seed 7"]


def test_spread_and_alarms_are_those_of_the_last_round():
    """Round 1: seeds far apart, nearly all on web. Round 2: 0.4 and 0.5 of web, a standard deviation of √0.005."""

    def answer_of(reference, seed):
        web = 0.4 + 0.1 * seed if reference[0] > 0.8 else 0.85 + 0.08 * seed
        return np.array([web, 0.9 * (1 - web), 0.1 * (1 - web)])

    answer, facts, _ = find(Proxies(answer_of), rounds=2, seeds=2)
    assert answer.weights["web"] == pytest.approx(0.45)
    assert facts["spread"]["web"] == pytest.approx(0.005**0.5)
    assert {seed: weights["web"] for seed, weights in facts["by_seed"].items()} == pytest.approx({"0": 0.4, "1": 0.5})
    assert [weights["web"] for weights in facts["rounds"]["weights"]] == pytest.approx([0.89, 0.45])
    assert set(alarms(answer)) == {"rounds"}  # no collapse any more


def test_what_the_answer_says_of_its_origin():
    answer, facts, _ = find(Proxies(around(FIXED, gain=0.0)), step_size=0.5)
    assert facts["reference_weights"] == START
    assert facts["options"]["step_size"] == 0.5
    assert facts["spread"] is None
    assert answer.alarms == []
    assert answer.policy is None


def test_upstreams_average_counts_the_initial_weights():
    """(4 · 0.4 + 1/3) / 5, with upstream's normalisation of the loss alone."""
    answer, _, _ = find(Proxies(around(FIXED, gain=0.0)), loss_normalisation="self_normalised")
    assert dict(answer.weights) == pytest.approx(dict(zip(NAMES, (4 * FIXED + 1 / 3) / 5, strict=True)), abs=1e-15)


def test_a_trained_reference_is_not_trained():
    _, _, labels = find(Proxies(around(FIXED, gain=0.0)), bench=made_up.bench(has_reference=True))
    assert labels == ["proxy"]


def test_how_the_reference_is_scored_is_part_of_a_run():
    bench = made_up.bench(has_reference=True)
    (plain,) = DoReMi().ask(bench, [])
    (cached,) = DoReMi(reference_cache=True, reference_cache_dtype="float16").ask(bench, [])
    assert plain.scoring == Scoring("float32", "none")
    assert cached.scoring == Scoring("float32", "float16")
    assert plain != cached
    assert dataclasses.replace(plain, label="another name") == plain


@pytest.mark.parametrize("failing", ["reference", "proxy, seed 1", "reference, round 2"])
def test_there_is_no_answer_without_a_run_that_failed(failing):
    """Nothing more is asked for: what follows would rest on it."""
    with pytest.raises(RunFailedError, match=rf"doremi: {failing}: step 3: the gradient norm is nan"):
        find(Proxies(around(FIXED, gain=0.5), failing=[failing]), rounds=2, seeds=2)


# ---- alarms ----


def alarms(answer):
    return {alarm.name: alarm.finding for alarm in answer.alarms}


def test_the_alarms_are_those_of_the_answer():
    """0.9 of the weight is on web; of books' 1,000 tokens the main run draws 180."""
    answers = np.array([0.9, 0.01, 0.09])
    answer, _, _ = find(Proxies(lambda *_: answers, early=[0.7, 0.2, 0.1]), bench=made_up.bench(max_epochs=0.1))
    found = alarms(answer)
    assert set(found) == {"collapse", "drift", "repetition"}
    assert "0.90 of the weight is on 'web'" in found["collapse"]
    # the mean of the last step alone is 4 · 0.9 − 3 · 0.7 = 1.5: no weights, but the figures are easy to check
    assert "in steps 4 to 4 the weights differ from their average over all steps by 0.60" in found["drift"]
    assert "'books' 0.2 times" in found["repetition"]


def test_settled_and_even_weights_raise_none():
    answer, _, _ = find(Proxies(around(FIXED, gain=0.0)), bench=made_up.bench(max_epochs=0.51))
    assert answer.alarms == []


def test_repetition_counts_the_main_runs_own_tokens():
    """A quarter of books in 2,000 tokens is half an epoch; in 8,000, two."""
    answer, _, _ = find(Proxies(around(FIXED, gain=0.0)), bench=made_up.bench(main_tokens=8_000, max_epochs=1.9))
    assert alarms(answer) == {
        "repetition": "the main run would see 1 of 3 domains more than 1.9 times: 'books' 2.0 times"
    }


def test_the_average_of_a_tail_is_not_checked_for_drift():
    answer, _, _ = find(Proxies(around(FIXED, gain=0.0), early=[0.9, 0.05, 0.05]), tail_fraction=0.5)
    assert answer.alarms == []


def test_drift_is_that_of_the_last_round():
    """The first round moves to the answer from far away, and its log is not looked at."""
    proxies = Proxies(around(FIXED, gain=0.0))
    outcome, numbers = proxies.outcome, itertools.count()

    def settle_later(run):
        proxies.early = [0.9, 0.05, 0.05] if next(numbers) < 2 else None
        return outcome(run)

    proxies.outcome = settle_later
    assert find(proxies, rounds=2)[0].alarms == []


def test_a_batch_that_cannot_hold_every_domain():
    answer, _, _ = find(
        Proxies(around(FIXED, gain=0.0)), bench=made_up.bench(rows={"proxy": 2}), allow_absent_domains=True
    )
    assert set(alarms(answer)) == {"batch"}
