from dataclasses import replace

import pytest
from scipy import stats

from doremi.evidence.results_file import parse
from doremi.report import comparisons
from doremi.report.comparisons import Basis

from .synthetic import make_results


@pytest.mark.parametrize(("num_seeds", "basis"), [(1, Basis.DOCUMENTS), (2, Basis.DOCUMENTS), (3, Basis.SEEDS)])
def test_intervals_rest_on_seeds_where_there_are_three(num_seeds, basis):
    results = make_results(12, num_seeds=num_seeds)
    found = comparisons.forests(parse(results))[0]
    assert found.basis is basis
    source = results["comparisons"][0] if basis is Basis.SEEDS else results["comparisons"][0]["documents"]
    assert {row.name: row.judged.ends for row in found.domains} == {
        name: None if judged["low"] is None else (judged["low"], judged["high"])
        for name, judged in source["domains"].items()
    }
    assert found.tally.num_better == source["tally"]["num_better"]


def test_domains_run_from_the_best_to_the_worst_and_end_with_the_unknown(results):
    changed = parse(make_results(12))
    unknown = replace(changed.comparisons[0].domains["stdlib"], value=None, low=None, high=None)
    headline = changed.comparisons[0]
    headline = replace(headline, domains=headline.domains | {"stdlib": unknown})
    rows = comparisons.forest(headline, changed.summary_labels).domains
    assert rows[-1].name == "stdlib"
    values = [row.judged.value for row in rows[:-1]]
    assert values == sorted(values)


def test_differences_are_those_of_the_seeds(results):
    """Against scipy's own paired t, from the losses of every seed beside them."""
    for row in comparisons.forests(parse(results))[0].domains:
        doremi, natural = (results["arms"][arm]["nats"][row.name] for arm in ("doremi", "natural"))
        expected = stats.ttest_rel(doremi, natural).confidence_interval(0.95)
        assert row.judged.ends == pytest.approx((expected.low, expected.high))


def test_pairs_are_in_the_order_of_the_file(results):
    rows = comparisons.pair_rows(parse(results))
    assert [(row.tuned, row.baseline) for row in rows] == [
        ("doremi", "natural"), ("uniform", "natural"), ("doremi", "uniform"),
    ]  # fmt: skip
    assert [row.minimal_detectable_effect for row in rows] == [
        found["verdict"]["minimal_detectable_effect"] for found in results["comparisons"]
    ]


def test_the_verdict_of_one_seed_claims_nothing_though_documents_differ():
    row = comparisons.pair_rows(parse(make_results(12, num_seeds=1)))[0]
    assert row.outcome == "not measured"
    assert row.tally.num_better > 0
    assert row.minimal_detectable_effect is None


def test_no_plain_arm_no_rows(results):
    assert comparisons.explained_rows(parse(results)) == []
