"""The comparison over seeds and its sentence: by hand, and how often it errs when there is nothing to find."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from doremi.errors import InputError
from doremi.evidence.outcomes import Outcome
from doremi.evidence.statistics import over_seeds
from doremi.evidence.targets import Targets
from doremi.evidence.verdict import compare_seeds, summaries_by_seed

WEIGHTS = {"web": 0.8, "code": 0.1, "maths": 0.1}
BASELINE = {"web": 3.0, "code": 2.0, "maths": 4.0}
NOISE = [-0.01, 0.0, 0.01]  # of a seed, on every domain alike


def compare(differences, *, noise=NOISE):
    """Baseline the same for all seeds; tuned differs by so much in each domain, give or take the seed's noise."""
    tuned = {
        seed: {name: BASELINE[name] + differences[name] + extra for name in BASELINE}
        for seed, extra in enumerate(noise)
    }
    values = {"baseline": dict.fromkeys(tuned, BASELINE), "main": tuned}
    return compare_seeds(values, tuned="main", baseline="baseline", targets=Targets(WEIGHTS))


def test_better():
    """Differences of mean −0.1 and spread 0.01 over 3 seeds: ± 4.302653 · 0.01/√3 = 0.0248."""
    found = compare({"web": -0.1, "code": -0.1, "maths": -0.1})
    assert found.verdict.sentence == (
        "Better: main minus baseline is -0.1 nats per token in the uniform mean (95 % interval -0.125 to -0.0752, "
        "paired t over seeds (n=3)); better on 3, no difference on 0, worse on 0 of 3 domains."
    )
    assert (found.verdict.outcome, found.verdict.summaries_agree) == (Outcome.BETTER, True)
    assert found.seeds == [0, 1, 2]


def test_worse_though_the_reference_weighted_mean_is_better():
    """Uniform (−0.1 + 0.2 + 0.2)/3 = 0.1; weighted −0.08 + 0.02 + 0.02 = −0.04; the worst domain is maths."""
    found = compare({"web": -0.1, "code": 0.2, "maths": 0.2})
    values = {name: judged.value for name, judged in found.summaries.items()}
    assert values == pytest.approx({"uniform_mean": 0.1, "reference_mean": -0.04, "worst": 0.2})
    assert found.verdict.sentence.startswith("Worse: main minus baseline is +0.1 nats per token in the uniform mean")
    assert found.verdict.sentence.endswith(
        "better on 1, no difference on 0, worse on 2 of 3 domains. The summaries disagree (reference-weighted mean: "
        "better, worst domain: worse)."
    )
    assert not found.verdict.summaries_agree


def test_no_difference_says_what_could_have_been_seen():
    """3.264 spreads of 0.01 are found in 4 of 5 experiments with 3 seeds."""
    found = compare({"web": -0.01, "code": -0.01, "maths": -0.01})
    assert found.verdict.outcome is Outcome.NO_DIFFERENCE
    assert found.verdict.minimal_detectable_effect == pytest.approx(0.0326, abs=1e-4)
    assert found.verdict.sentence == (
        "No difference that this experiment can see: main minus baseline is -0.01 nats per token in the uniform mean "
        "(95 % interval -0.0348 to +0.0148, paired t over seeds (n=3)), and one of 0.033 would have been found with "
        "80 % probability; better on 0, no difference on 3, worse on 0 of 3 domains."
    )


@pytest.mark.parametrize(
    ("noise", "why"),
    [
        ([0.0], "1 of the 3 seeds that an interval needs"),
        ([0.0001, -0.0001], "2 of the 3 seeds that an interval needs"),
        ([0.0, 0.0, 0.0], "all 3 seeds give the same number"),
    ],
)
def test_without_seed_noise_it_says_neither_better_nor_worse(noise, why):
    found = compare({"web": -0.9, "code": -0.9, "maths": -0.9}, noise=noise)
    assert found.verdict.outcome is Outcome.NOT_MEASURED
    assert found.verdict.minimal_detectable_effect is None
    assert found.verdict.sentence.startswith(f"Seed noise not measured ({why}): main minus baseline is -0.9 nats")
    assert " in the reference-weighted mean, -0.9 in the worst domain; whether" in found.verdict.sentence
    assert not {"better", "Better", "worse", "Worse"} & set(found.verdict.sentence.split())
    assert found.tally.num_not_measured == 3


def test_noise_that_cancels_in_the_primary_summary_leaves_it_unmeasured():
    """Two domains trade the same amount in each seed: the other summaries do not stand in for the chosen one."""
    tuned = {seed: BASELINE | {"web": 2.0 + extra, "code": 2.0 - extra} for seed, extra in enumerate(NOISE)}
    values = {"baseline": dict.fromkeys(tuned, BASELINE), "main": tuned}
    found = compare_seeds(values, tuned="main", baseline="baseline", targets=Targets(WEIGHTS))
    assert found.summaries["reference_mean"].outcome is Outcome.BETTER
    assert found.verdict.outcome is Outcome.NOT_MEASURED
    assert not found.verdict.summaries_agree
    assert "better" not in found.verdict.sentence


def test_domains_are_holm_corrected():
    """p = .0033 for web and maths, .0422 for code: alone significant, and Holm's order asks 3 p, 2 p and p of them."""
    found = compare({"web": -0.1, "code": -0.0272, "maths": -0.1})
    p_values = [found.domains[name].p_value for name in ("web", "code", "maths")]
    assert p_values == pytest.approx([0.0033, 0.0422, 0.0033], abs=1e-4)
    assert found.domains["web"].holm_p_value == pytest.approx(3 * p_values[0])
    assert found.domains["code"].holm_p_value == pytest.approx(p_values[1])
    assert found.domains["code"].outcome is Outcome.BETTER
    found = compare({"web": -0.03, "code": -0.0272, "maths": -0.03})
    assert all(judged.p_value < 0.05 for judged in found.domains.values())
    assert found.tally.num_no_difference == 3


def test_is_paired_by_seed_and_names_seeds_without_a_partner():
    values = {
        "baseline": {seed: {"a": 3.0 + seed} for seed in (0, 1, 2, 3)},
        "main": {
            seed: {"a": 3.1 + seed + extra} for seed, extra in zip((4, 2, 1, 0), (9, 0.01, 0, -0.01), strict=True)
        },
    }
    found = compare_seeds(values, tuned="main", baseline="baseline", targets=Targets({"a": 1.0}))
    assert (found.seeds, found.unpaired_seeds) == ([0, 1, 2], [3, 4])
    expected = over_seeds([0.09, 0.1, 0.11])
    assert (found.domains["a"].value, found.domains["a"].low) == pytest.approx((expected.value, expected.low))


def test_swapping_the_runs_mirrors_the_result():
    rng = np.random.default_rng(0)
    values = {
        run: {seed: {name: level + rng.normal(0, 0.05) for name, level in BASELINE.items()} for seed in range(4)}
        for run in ("x", "y")
    }
    there = compare_seeds(values, tuned="x", baseline="y", targets=Targets(WEIGHTS))
    back = compare_seeds(values, tuned="y", baseline="x", targets=Targets(WEIGHTS))
    for one, other in zip(there.domains.values(), back.domains.values(), strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
        assert one.p_value == pytest.approx(other.p_value)
    assert there.verdict.minimal_detectable_effect == pytest.approx(back.verdict.minimal_detectable_effect)


def test_summaries_by_seed():
    found = summaries_by_seed({7: BASELINE}, Targets(WEIGHTS))
    assert found == {"uniform_mean": {7: 3.0}, "reference_mean": {7: pytest.approx(3.0)}, "worst": {7: 4.0}}


def test_is_json():
    found = json.loads(json.dumps(dataclasses.asdict(compare(dict.fromkeys(BASELINE, -0.1))), allow_nan=False))
    assert found["verdict"]["outcome"] == "better"
    assert found["domains"]["web"]["outcome"] == "better"
    assert found["tally"]["num_domains"] == 3


# Of main models that differ in their seed alone, by domain, and what all domains share: standard deviations in nats per
# token, over the 25 models of docs/results/minipile.
OWN_SPREADS = np.array([0.056, 0.029, 0.009, 0.013, 0.016, 0.025, 0.012, 0.015, 0.014, 0.011, 0.013, 0.014, 0.022])
SHARED_SPREAD = 0.051


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_the_same_weights_with_other_seeds_differ_at_the_nominal_rate(num_seeds):
    """Two runs of one weight vector, with the spreads over seeds that a real run had.

    The verdict says better or worse in 5 % of experiments, and any domain at all is called so in at most 5 %, thanks to
    Holm.
    """
    num_draws, num_domains = 2_000, len(OWN_SPREADS)
    names = [f"domain {index}" for index in range(num_domains)]
    weights = dict(zip(names, np.linspace(1, 3, num_domains), strict=True))
    rng = np.random.default_rng(num_seeds)
    draws = 4.4 + rng.normal(0, OWN_SPREADS, (num_draws, 2, num_seeds, num_domains))
    draws += rng.normal(0, SHARED_SPREAD, (num_draws, 2, num_seeds, 1))
    num_verdicts = num_with_a_domain = 0
    for draw in draws:
        runs = [{seed: dict(zip(names, row, strict=True)) for seed, row in enumerate(run)} for run in draw.tolist()]
        values = dict(zip(("baseline", "again"), runs, strict=True))
        found = compare_seeds(values, tuned="again", baseline="baseline", targets=Targets(weights))
        num_verdicts += found.verdict.outcome is not Outcome.NO_DIFFERENCE
        num_with_a_domain += found.tally.num_no_difference < num_domains
    assert 0.035 <= num_verdicts / num_draws <= 0.065
    assert num_with_a_domain / num_draws <= 0.065


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"main": {1: {"a": 1.0}}, "baseline": {0: {"a": 1.0}}}, r"'main' has seeds \[1\] and 'baseline' has \[0\]"),
        ({"main": {0: {"a": 1.0}}, "baseline": {0: {"a": 1.0, "b": 1.0}}}, r"'main', seed 0: not the same .* \('b'\)"),
        ({"main": {0: {"a": float("nan")}}, "baseline": {0: {"a": 1.0}}}, "'main', seed 0: the loss of 'a' is nan"),
        ({"main": {0: {"z": 1.0}}, "baseline": {0: {"z": 1.0}}}, "no reference weight for 'z'"),
    ],
)
def test_what_cannot_be_compared_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        compare_seeds(values, tuned="main", baseline="baseline", targets=Targets({"a": 0.5, "b": 0.5}))
