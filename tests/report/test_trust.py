import math

import pytest

from doremi.evidence.results_file import parse
from doremi.methods import alarms as diagnostics
from doremi.report import trust

from .synthetic import make_results


def test_effective_number_is_that_of_the_diagnostics():
    weights = {"a": 0.5, "b": 0.3, "c": 0.2, "d": 0.0}
    assert trust.effective_num_domains(weights) == pytest.approx(diagnostics.effective_number(weights))
    assert trust.effective_num_domains(dict.fromkeys("abcd", 0.25)) == pytest.approx(4)


def test_drift_is_the_distance_of_the_last_quarter_from_the_answer():
    results = make_results(2)
    results["searches"]["doremi"]["trajectory"] = {
        "steps": [25, 50, 75, 100],
        "dro_weights": {"stdlib": [0.5, 0.5, 0.5, 0.9], "ml-libraries": [0.5, 0.5, 0.5, 0.1]},
        "average_weights": {"stdlib": [0.5, 0.5, 0.5, 0.6], "ml-libraries": [0.5, 0.5, 0.5, 0.4]},
        "excess_losses": {},
    }
    assert trust.late_drift(parse(results)) == pytest.approx(0.3)  # (|0.9 - 0.6| + |0.1 - 0.4|) / 2
    assert trust.late_drift(parse(results | {"searches": {}})) is None


def test_drift_is_near_what_the_diagnostics_would_say(results):
    parsed = parse(results)
    recorded = trust.trajectory(parsed)
    steps, names = recorded.steps, list(parsed.domains)
    averages = {step: [recorded.average_weights[name][i] for name in names] for i, step in enumerate(steps)}
    import numpy as np

    late = diagnostics.last_quarter({step: np.array(values) for step, values in averages.items()})
    exact = float(np.abs(late.mean - np.array(averages[steps[-1]])).sum() / 2)
    assert trust.late_drift(parsed) == pytest.approx(exact, abs=0.01)


def test_domains_of_weight_zero_are_left_out():
    results = make_results(3)
    results["arms"]["doremi"]["weights"] |= {"stdlib": 0.0, "ml-libraries": None}
    assert trust.absent_domains(parse(results)) == ["stdlib"]


def test_spread_and_rounds(results):
    parsed = parse(results)
    assert trust.largest_spread(parsed) == pytest.approx(
        max(results["searches"]["doremi"]["convergence"]["spread"].values())
    )
    assert [(row.number, row.change) for row in trust.round_rows(parsed)] == [(1, 0.2171), (2, 0.0312)]
    bare = parse(results | {"searches": {"doremi": {}}})
    assert (trust.largest_spread(bare), trust.round_rows(bare)) == (None, [])


def test_alarms_keep_their_kinds_apart(results):
    alarms = [{"name": kind, "finding": f"{kind} {i}", "remedy": f"stop {kind}"} for i in range(4) for kind in "ab"]
    rows = trust.alarm_rows(parse(results | {"searches": {"doremi": {"alarms": alarms}}}))
    assert [(row.name, row.findings, row.num_more, row.remedy) for row in rows] == [
        ("a", ("a 0", "a 1", "a 2"), 1, "stop a"),
        ("b", ("b 0", "b 1", "b 2"), 1, "stop b"),
    ]
    assert not math.isnan(trust.effective_num_domains({}))


def test_alarms_of_several_searches_say_whose_they_are(results):
    alarm = {"name": "drift", "finding": "it drifts", "remedy": "wait"}
    rows = trust.alarm_rows(parse(results | {"searches": {a: {"alarms": [alarm]} for a in ("doremi", "uniform")}}))
    assert [row.findings for row in rows] == [("doremi: it drifts", "uniform: it drifts")]
