"""Comparisons of an experiment put together from losses and curves: numbers worked out by hand and with scipy."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import stats

from doremi.evidence.comparing import (
    Evidence,
    SummaryCurve,
    compare,
    explained,
    mean_over_seeds,
    pairs,
    with_family,
)
from doremi.evidence.outcomes import Outcome
from doremi.evidence.paired_documents import DocumentLosses
from doremi.evidence.targets import SetSizes, Targets, parse

REFERENCE = {"a": 0.75, "b": 0.25}
SEEDS = (0, 1, 2)


def goals(spec, *, sets=()):
    """The targets of a recipe; a token is four bytes long everywhere."""
    sizes = SetSizes(dict.fromkeys([*REFERENCE, *sets], 4.0), sets)
    return Targets(REFERENCE, parse(spec, prior=REFERENCE, sizes=sizes), sets)


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
PAIR = ("main", "baseline")


def test_nats_are_those_of_all_tokens():
    assert BASELINE.nats[1] == pytest.approx({"a": 3.1, "b": 2.1})
    assert mean_over_seeds(BASELINE.nats) == pytest.approx({"a": 3.1, "b": 6.2 / 3})


def test_differences_over_seeds_are_the_paired_t_test_of_scipy():
    found = compare(RUNS, PAIR, targets=Targets(REFERENCE))
    after = [0.75 * 2.9 + 0.25 * 1.9, 0.75 * 2.95 + 0.25 * 2.0, 0.75 * 3.1 + 0.25 * 2.02]
    before = [0.75 * 3.0 + 0.25 * 2.0, 0.75 * 3.1 + 0.25 * 2.1, 0.75 * 3.2 + 0.25 * 2.1]
    expected = stats.ttest_rel(after, before)
    summary = found.summaries["reference_mean"]
    assert summary.value == pytest.approx(np.mean(after) - np.mean(before))
    assert summary.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert summary.ends == pytest.approx((interval.low, interval.high))
    assert (found.tuned, found.baseline, found.seeds) == ("main", "baseline", [0, 1, 2])


def test_documents_are_compared_in_their_mean_over_seeds():
    found = compare(RUNS, PAIR, targets=Targets(REFERENCE)).documents
    assert found.domains["a"].value == pytest.approx(np.mean([-0.1, -0.15, -0.1]))
    assert found.domains["a"].method.startswith("jackknife t over documents (n=40")


def test_each_seed_races_against_its_own_baseline():
    found = compare(RUNS, PAIR, targets=Targets(REFERENCE), search_flops=1000.0)
    saved = found.speed_up
    assert saved.steps_to_match.value == pytest.approx(200.0)  # 2.0 is reached at the second of three points
    assert saved.factor.value == pytest.approx(1.5)
    assert saved.flops_to_match.value == pytest.approx(2000.0)
    assert saved.factor_with_search.value == pytest.approx(3000 / (2000 + 1000))


def test_the_target_is_the_end_of_the_baseline_of_the_same_seed():
    curves = {seed: SummaryCurve((100, 200, 300), (4.0, 1.0, end)) for seed, end in ((0, 2.0), (1, 2.5), (2, 3.0))}
    before = replace(BASELINE, curves=curves, steps=600)  # its best loss is not its last
    found = compare(RUNS | {"baseline": before}, PAIR, targets=Targets(REFERENCE))
    factors = [600 / 200, 600 / 150, 600 / 100]  # main is at 3.0, 2.0, 1.5
    assert found.speed_up.factor.value == pytest.approx(stats.gmean(factors))


def test_the_control_explains_its_share_of_the_gain():
    found = explained(RUNS, baseline="baseline", control="control", tuned="main", targets=Targets(REFERENCE))
    gains = np.mean([0.1, 0.125, 0.09])  # uniform mean, baseline minus main
    control = np.mean([0.05, 0.07, 0.05])
    assert found["uniform_mean"].share.value == pytest.approx(control / gains)
    assert found["uniform_mean"].by_seed[1] == pytest.approx(0.07 / 0.125)


def test_a_single_seed_has_no_interval_and_claims_nothing():
    alone = {
        name: evidence({0: tuple(run.nats[0].values())}, noise_seed=index)
        for index, (name, run) in enumerate(RUNS.items())
    }
    found = compare(alone, PAIR, targets=Targets(REFERENCE))
    assert found.verdict.outcome == "not measured"
    assert found.verdict.sentence.startswith("Seed noise not measured")
    assert found.summaries["uniform_mean"].low is None
    assert found.documents.domains["b"].low is not None  # over documents there is one


def test_it_is_json():
    found = compare(RUNS, PAIR, targets=Targets(REFERENCE))
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["verdict"]["outcome"] == str(found.verdict.outcome)


def test_the_verdict_is_about_the_target():
    """The other summaries stand beside it, with the numbers that they have as targets."""
    by_target = {target: compare(RUNS, PAIR, targets=goals(target)) for target in ("uniform", "reference", "worst")}
    for found, key in zip(by_target.values(), ("uniform_mean", "reference_mean", "worst"), strict=True):
        assert found.verdict.primary == key
        assert found.summaries == by_target["uniform"].summaries
        assert f"{found.summaries[key].value:+.3g} nats per token in the" in found.verdict.sentence


def test_a_target_of_weighed_sets_is_their_mean_in_bits_per_byte():
    """A set that is no domain counts in the target, and is judged apart from the domains."""
    runs = {name: with_answers(run, shift) for (name, run), shift in zip(RUNS.items(), (0.0, -0.4, 0.0), strict=True)}
    found = compare(runs, PAIR, targets=goals({"answers": 3.0, "a": 1.0}, sets=("answers",)))
    expected = np.array(
        [0.75 * (-0.4 + extra) + 0.25 * change for extra, change in zip(EXTRA, (-0.1, -0.15, -0.1), strict=True)]
    ) / (4 * np.log(2))
    assert found.summaries["target"].value == pytest.approx(np.mean(expected))
    assert found.summaries["target"].p_value == pytest.approx(stats.ttest_1samp(expected, 0).pvalue)
    assert found.documents.summaries["target"].value == pytest.approx(np.mean(expected))
    assert (list(found.domains), list(found.sets)) == (["a", "b"], ["answers"])
    assert (list(found.documents.domains), list(found.documents.sets)) == (["a", "b"], ["answers"])
    assert found.sets["answers"].value == pytest.approx(-0.4)
    plain = compare(RUNS, PAIR, targets=Targets(REFERENCE))
    assert found.domains == plain.domains
    assert {key: found.summaries[key] for key in plain.summaries} == plain.summaries


EXTRA = (-0.01, 0.0, 0.01)


def with_answers(run, shift):
    """The same models, scored on another set: 4 nats per token, the shift, and what differs from seed to seed."""
    more = {seed: DocumentLosses((4 + shift + extra * bool(shift)) * np.full(40, 10.0), np.full(40, 10))
            for seed, extra in zip(SEEDS, EXTRA, strict=True)}  # fmt: skip
    return replace(run, losses={seed: dict(run.losses[seed]) | {"answers": more[seed]} for seed in SEEDS})


def test_pairs_are_every_arm_with_the_control_and_every_search_with_every_rule():
    found = pairs(["natural", "doremi", "uniform", "swarm", "file"], control="natural", searched=["doremi", "swarm"])
    assert found == [
        ("doremi", "natural"), ("swarm", "natural"), ("uniform", "natural"), ("file", "natural"),
        ("doremi", "uniform"), ("doremi", "file"), ("swarm", "uniform"), ("swarm", "file"),
    ]  # fmt: skip
    assert pairs(["a", "b", "c"], control="b", searched=["b"]) == [("a", "b"), ("c", "b")]


def test_arms_that_are_compared_with_the_control_are_one_family():
    """Holm's p of two is twice the smaller and the larger itself; pairs of other arms stay out of it."""
    found = [
        compare(RUNS, pair, targets=Targets(REFERENCE)) for pair in (PAIR, ("control", "baseline"), ("main", "control"))
    ]
    first, second, other = with_family(found, control="baseline")
    p_values = [one.summaries["uniform_mean"].p_value for one in (first, second)]
    smaller, larger = sorted(p_values)
    expected = {smaller: min(2 * smaller, 1.0), larger: max(2 * smaller, larger)}
    assert [one.among_arms.holm_p_value for one in (first, second)] == [expected[p_value] for p_value in p_values]
    assert other.among_arms is None
    assert first.verdict == found[0].verdict
    assert [one.among_arms.outcome for one in with_family(found[:1], control="baseline")] == [Outcome.BETTER]
