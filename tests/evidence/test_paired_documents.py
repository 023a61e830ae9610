"""Two models on the same documents: the jackknife against a direct computation, and its coverage by simulation."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from doremi.errors import InputError
from doremi.evidence.outcomes import Outcome
from doremi.evidence.paired_documents import DocumentLosses, compare_documents, over_documents
from doremi.evidence.targets import Targets

NUM_DRAWS = 2_000
MEAN_DIFFERENCE, MEDIAN_TOKENS = -0.02, 400


def pair(differences, num_tokens, *, baseline_nats_per_token=3.0):
    """Two models that differ by so many nats per document."""
    baseline = baseline_nats_per_token * np.asarray(num_tokens, float)
    return DocumentLosses(baseline + differences, num_tokens), DocumentLosses(baseline, num_tokens)


def over(differences, num_tokens):
    tuned, baseline = pair(differences, num_tokens)
    return over_documents(tuned, baseline=baseline)


def draw(rng, *, num_documents, log_length_spread, length_effect=0.01):
    """Lognormal lengths; differences per token that depend a little on length, with noise of Student's t (3 degrees
    of freedom: no finite kurtosis), one part shared by the whole document and one that averages out over its tokens.
    """
    log_length = rng.normal(0, log_length_spread, num_documents)
    num_tokens = np.ceil(MEDIAN_TOKENS * np.exp(log_length)).astype(int)
    noise = 0.05 * rng.standard_t(3, num_documents) + rng.standard_t(3, num_documents) / num_tokens**0.5
    return (MEAN_DIFFERENCE + length_effect * log_length + noise) * num_tokens, num_tokens


def true_difference(log_length_spread, length_effect=0.01):
    """The expected log length is 0 by document and σ² by token."""
    return MEAN_DIFFERENCE + length_effect * log_length_spread**2


def test_documents_of_one_length_are_scipys_paired_t():
    rng = np.random.default_rng(0)
    tuned, baseline = rng.normal(300, 10, 40), rng.normal(302, 10, 40)
    num_tokens = np.full(40, 100)
    found = over_documents(DocumentLosses(tuned, num_tokens), baseline=DocumentLosses(baseline, num_tokens))
    scipys = stats.ttest_rel(tuned / 100, baseline / 100)
    assert found.p_value == pytest.approx(scipys.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(scipys.confidence_interval(0.95)), rel=1e-9)
    assert found.method == "jackknife t over documents (n=40, effective 40)"


def test_leaves_one_document_out_at_a_time():
    differences, num_tokens = draw(np.random.default_rng(1), num_documents=50, log_length_spread=0.8)
    ratios = [np.delete(differences, i).sum() / np.delete(num_tokens, i).sum() for i in range(50)]
    standard_error = (49 / 50 * sum((ratio - np.mean(ratios)) ** 2 for ratio in ratios)) ** 0.5
    effective = sum(num_tokens) ** 2 / sum(num_tokens**2)
    half_width = stats.t.ppf(0.975, effective - 1) * standard_error
    found = over(differences, num_tokens)
    assert found.value == pytest.approx(differences.sum() / num_tokens.sum())
    assert (found.low, found.high) == pytest.approx((found.value - half_width, found.value + half_width), rel=1e-9)


def test_documents_without_a_token_count_for_nothing():
    differences, num_tokens = draw(np.random.default_rng(1), num_documents=40, log_length_spread=0.5)
    empty = np.zeros(20)
    with_empty = over(np.append(differences, empty), np.append(num_tokens, empty))
    assert with_empty == over(differences, num_tokens)


@pytest.mark.parametrize(
    ("differences", "num_tokens", "method"),
    [
        ([-1.0], [10], "none: 1 of the 30 documents that an interval needs"),
        (np.arange(29.0), [10] * 29, "none: 29 of the 30 documents that an interval needs"),
        (0.1 * np.arange(10, 50), np.arange(10, 50), "none: the difference per token is the same in all 40 documents"),
        (np.zeros(30), [10] * 30, "none: the difference per token is the same in all 30 documents"),
        (
            np.arange(60.0),
            [10_000] + [10] * 59,  # (10,590)² / (10,000² + 5,900) = 1.12
            "none: a few of the 60 documents hold most tokens (effective number 1.1), an interval needs 10",
        ),
    ],
)
def test_no_interval_and_why(differences, num_tokens, method):
    found = over(differences, num_tokens)
    assert found.value == pytest.approx(np.sum(differences) / np.sum(num_tokens))
    assert (found.low, found.high, found.p_value, found.method) == (None, None, None, method)


@pytest.mark.parametrize("num_documents", [30, 100, 400])
@pytest.mark.parametrize("log_length_spread", [0.5, 1.0, 1.4])
def test_coverage_over_documents(num_documents, log_length_spread):
    """Nominal 95 %; measured: 94 to 96 % of the intervals that are shown.

    The spreads of the logarithm of the length are those of real text: 0.5 for prose, 0.9 for help pages, 1.4 for source
    code. With 30 documents of spread 1.4, 58 % of the draws have too small an effective number and give no interval.
    """
    rng = np.random.default_rng(num_documents)
    estimates = [
        over(*draw(rng, num_documents=num_documents, log_length_spread=log_length_spread)) for _ in range(NUM_DRAWS)
    ]
    truth = true_difference(log_length_spread)
    shown = [estimate.low <= truth <= estimate.high for estimate in estimates if estimate.low is not None]
    assert len(shown) > 0.3 * NUM_DRAWS
    assert 0.92 <= np.mean(shown) <= 0.98


def test_a_percentile_bootstrap_would_be_far_off():
    """Why 8 documents get no interval: the percentile bootstrap, usual in this field, covers 87 % there and not 95 %.

    It also shows that the simulation above can tell a bad interval from a good one.
    """
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(NUM_DRAWS):
        differences, num_tokens = draw(rng, num_documents=8, log_length_spread=1.0)
        chosen = rng.integers(0, 8, (500, 8))
        low, high = np.quantile(differences[chosen].sum(1) / num_tokens[chosen].sum(1), [0.025, 0.975])
        hits += low <= true_difference(1.0) <= high
    assert hits / NUM_DRAWS < 0.90


def domains(rng, sizes, offsets):
    tuned, baseline = {}, {}
    for (name, num_documents), offset in zip(sizes.items(), offsets, strict=True):
        differences, num_tokens = draw(rng, num_documents=num_documents, log_length_spread=0.5, length_effect=0)
        tuned[name], baseline[name] = pair(differences + offset * num_tokens, num_tokens)
    return tuned, baseline


def test_coverage_of_the_weighted_mean_of_domains():
    rng = np.random.default_rng(3)
    weights = {"a": 0.7, "b": 0.2, "c": 0.1}
    truth = MEAN_DIFFERENCE + 0.7 * 0.1 - 0.1 * 0.2
    shown = []
    for _ in range(NUM_DRAWS):
        tuned, baseline = domains(rng, {"a": 30, "b": 60, "c": 35}, [0.1, 0.0, -0.2])
        found = compare_documents(tuned, baseline=baseline, targets=Targets(weights)).summaries["reference_mean"]
        shown.append(found.low <= truth <= found.high)
    assert 0.92 <= np.mean(shown) <= 0.98


def test_two_domains_are_welchs_test():
    """Documents of one length: the uniform mean of x and −y is half of Welch's two-sample difference."""
    rng = np.random.default_rng(4)
    x, y, tokens = rng.normal(0, 5, 40), rng.normal(0, 20, 31), 100
    tuned, baseline = {}, {}
    tuned["x"], baseline["x"] = pair(x, np.full(40, tokens))
    tuned["y"], baseline["y"] = pair(-y, np.full(31, tokens))
    found = compare_documents(tuned, baseline=baseline, targets=Targets({"x": 1, "y": 0})).summaries
    welch = stats.ttest_ind(x / tokens / 2, y / tokens / 2, equal_var=False)
    low, high = welch.confidence_interval(0.95)
    assert found["uniform_mean"].p_value == pytest.approx(welch.pvalue, rel=1e-9)
    assert (found["uniform_mean"].low, found["uniform_mean"].high) == pytest.approx((low, high), rel=1e-9)
    assert found["uniform_mean"].method == "jackknife t over documents within domains (n=71 in 2 domains)"
    assert found["reference_mean"].low == pytest.approx(stats.ttest_1samp(x / tokens, 0).confidence_interval(0.95).low)


def test_comparison_by_domain_and_worst_domain():
    rng = np.random.default_rng(5)
    tuned, baseline = domains(rng, {"gain": 200, "loss": 200, "few": 9}, [-0.2, 0.35, 0.0])
    weights = {"gain": 0.6, "loss": 0.4, "few": 0.0}
    found = compare_documents(tuned, baseline=baseline, targets=Targets(weights))
    assert [judged.outcome for judged in found.domains.values()] == ["better", "worse", "not measured"]
    assert str(found.tally) == "better on 1, no difference on 0, worse on 1 of 3 domains (not measured on 1)"
    assert found.summaries["uniform_mean"].method == "none: 1 of 3 domains have no interval"
    assert found.summaries["reference_mean"].outcome is Outcome.NO_DIFFERENCE
    assert found.summaries["worst"].method == "none: the worst domain was 'gain' and is now 'loss'"
    assert found.summaries["worst"].value == pytest.approx(found.domains["loss"].value, abs=1e-9)
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_the_worst_domain_is_paired_where_it_is_the_same_for_both_models():
    tuned, baseline = domains(np.random.default_rng(5), {"gain": 100, "loss": 100}, [-0.2, 0.35])
    for losses in (tuned, baseline):
        losses["gain"] = DocumentLosses(losses["gain"].nats + losses["gain"].num_tokens, losses["gain"].num_tokens)
    found = compare_documents(tuned, baseline=baseline, targets=Targets({"gain": 0.5, "loss": 0.5}))
    assert found.summaries["worst"].value == found.domains["gain"].value
    assert found.summaries["worst"].outcome is Outcome.BETTER


def test_other_documents_are_refused():
    few, many = (DocumentLosses(np.ones(n), np.full(n, 10)) for n in (3, 4))
    with pytest.raises(InputError, match=r"Wiki: the two models did not score the same documents \(3 with 30 tokens"):
        compare_documents({"Wiki": few}, baseline={"Wiki": many}, targets=Targets({"Wiki": 1.0}))
    none = DocumentLosses(np.zeros(0), np.zeros(0, int))
    with pytest.raises(InputError, match="the domain: no held-out token was scored"):
        over_documents(none, baseline=none)
    infinite = DocumentLosses(np.array([1.0, np.inf, 1.0]), few.num_tokens)
    with pytest.raises(InputError, match=r"document 1 has a loss of 1\.0 and, in the baseline, inf"):
        over_documents(few, baseline=infinite)
    with pytest.raises(InputError, match="'Books', 'Wiki': scored for one of the two models only"):
        compare_documents({"Wiki": few}, baseline={"Books": few}, targets=Targets({"Wiki": 1.0}))
