"""Comparisons of an experiment put together from losses and curves: numbers worked out by hand and with scipy."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from doremi.evidence.comparing import Evidence, SummaryCurve, compare, explained, mean_over_seeds
from doremi.evidence.paired_documents import DocumentLosses
from doremi.evidence.targets import Targets

REFERENCE = {"a": 0.75, "b": 0.25}
SEEDS = (0, 1, 2)


def evidence(per_token, *, curve=(4.0, 3.0, 2.0), noise_seed=0, num_documents=40):
    """Models whose nats per token in the two domains are ``per_token[seed]``, document by document."""
    sizes = np.random.default_rng(5).integers(5, 50, size=num_documents)
    rng = np.random.default_rng(noise_seed)
    noise = {seed: rng.normal(size=num_documents) for seed in SEEDS}
    for values in noise.values():
        values -= (values * sizes).sum() / sizes.sum()  # leaves the mean per token alone
    return Evidence(
        losses={
            seed: {
                name: DocumentLosses((value + 0.1 * noise[seed]) * sizes, sizes)
                for name, value in zip("ab", values, strict=True)
            }
            for seed, values in per_token.items()
        },
        curves={seed: SummaryCurve((100, 200, 300), curve) for seed in per_token},
        steps=300,
        flops_per_step=10.0,
    )


BASELINE = evidence({0: (3.0, 2.0), 1: (3.1, 2.1), 2: (3.2, 2.1)})
TUNED = evidence({0: (2.9, 1.9), 1: (2.95, 2.0), 2: (3.1, 2.02)}, curve=(3.0, 2.0, 1.5), noise_seed=1)
CONTROL = evidence({0: (2.96, 1.94), 1: (3.0, 2.06), 2: (3.15, 2.05)}, noise_seed=2)
RUNS = {"baseline": BASELINE, "main": TUNED, "control": CONTROL}


def test_nats_are_those_of_all_tokens():
    assert BASELINE.nats[1] == pytest.approx({"a": 3.1, "b": 2.1})
    assert mean_over_seeds(BASELINE.nats) == pytest.approx({"a": 3.1, "b": 6.2 / 3})


def test_differences_over_seeds_are_the_paired_t_test_of_scipy():
    found = compare(RUNS, tuned="main", baseline="baseline", targets=Targets(REFERENCE))
    after = [0.75 * 2.9 + 0.25 * 1.9, 0.75 * 2.95 + 0.25 * 2.0, 0.75 * 3.1 + 0.25 * 2.02]
    before = [0.75 * 3.0 + 0.25 * 2.0, 0.75 * 3.1 + 0.25 * 2.1, 0.75 * 3.2 + 0.25 * 2.1]
    expected = stats.ttest_rel(after, before)
    summary = found["summaries"]["reference_mean"]
    assert summary["value"] == pytest.approx(np.mean(after) - np.mean(before))
    assert summary["p_value"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (summary["low"], summary["high"]) == pytest.approx((interval.low, interval.high))
    assert (found["tuned"], found["baseline"], found["seeds"]) == ("main", "baseline", [0, 1, 2])


def test_documents_are_compared_in_their_mean_over_seeds():
    found = compare(RUNS, tuned="main", baseline="baseline", targets=Targets(REFERENCE))["documents"]
    assert found["domains"]["a"]["value"] == pytest.approx(np.mean([-0.1, -0.15, -0.1]))
    assert found["domains"]["a"]["method"].startswith("jackknife t over documents (n=40")


def test_each_seed_races_against_its_own_baseline():
    found = compare(RUNS, tuned="main", baseline="baseline", targets=Targets(REFERENCE), search_flops=1000.0)
    saved = found["speed_up"]
    assert saved["steps_to_match"]["value"] == pytest.approx(200.0)  # 2.0 is reached at the second of three points
    assert saved["factor"]["value"] == pytest.approx(1.5)
    assert saved["flops_to_match"]["value"] == pytest.approx(2000.0)
    assert saved["factor_with_search"]["value"] == pytest.approx(3000 / (2000 + 1000))


def test_the_target_is_the_end_of_the_baseline_of_the_same_seed():
    curves = {seed: SummaryCurve((100, 200, 300), (4.0, 1.0, end)) for seed, end in ((0, 2.0), (1, 2.5), (2, 3.0))}
    before = replace(BASELINE, curves=curves, steps=600)  # its best loss is not its last
    found = compare(RUNS | {"baseline": before}, tuned="main", baseline="baseline", targets=Targets(REFERENCE))
    factors = [600 / 200, 600 / 150, 600 / 100]  # main is at 3.0, 2.0, 1.5
    assert found["speed_up"]["factor"]["value"] == pytest.approx(stats.gmean(factors))


def test_the_control_explains_its_share_of_the_gain():
    found = explained(RUNS, baseline="baseline", control="control", tuned="main", targets=Targets(REFERENCE))
    gains = np.mean([0.1, 0.125, 0.09])  # uniform mean, baseline minus main
    control = np.mean([0.05, 0.07, 0.05])
    assert found["uniform_mean"]["share"]["value"] == pytest.approx(control / gains)
    assert found["uniform_mean"]["by_seed"][1] == pytest.approx(0.07 / 0.125)


def test_a_single_seed_has_no_interval_and_claims_nothing():
    alone = {
        name: evidence({0: tuple(run.nats[0].values())}, noise_seed=index)
        for index, (name, run) in enumerate(RUNS.items())
    }
    found = compare(alone, tuned="main", baseline="baseline", targets=Targets(REFERENCE))
    assert found["verdict"]["outcome"] == "not measured"
    assert found["verdict"]["sentence"].startswith("Seed noise not measured")
    assert found["summaries"]["uniform_mean"]["low"] is None
    assert found["documents"]["domains"]["b"]["low"] is not None  # over documents there is one


def test_it_is_json():
    found = compare(RUNS, tuned="main", baseline="baseline", targets=Targets(REFERENCE))
    assert json.loads(json.dumps(found, allow_nan=False))["verdict"]["outcome"] == str(found["verdict"]["outcome"])
