import pytest

from doremi.evidence.recorded_results import parse
from doremi.report import views

from .synthetic import make_results


def test_difference_is_main_minus_baseline_in_either_unit(results):
    for metric in views.Metric:
        for row in views.domain_rows(parse(results), metric=metric):
            losses = results["domains"][row.name][metric.value]
            assert row.losses == (losses["baseline"], losses["main"], losses["uniform"])
            assert row.difference == losses["main"] - losses["baseline"]


def test_ratio_of_weights():
    results = make_results(2)
    results["domains"]["stdlib"] |= {"reference_weight": 0.2, "doremi_weight": 0.5}
    results["domains"]["ml-libraries"] |= {"reference_weight": 0.0, "doremi_weight": 0.5}
    rows = {row.name: row.ratio for row in views.domain_rows(parse(results))}
    assert rows == {"stdlib": pytest.approx(2.5), "ml-libraries": None}


def test_summaries_come_from_their_own_fields(results):
    rows = views.summary_rows(parse(results))
    assert [row.label for row in rows] == ["uniform mean", "reference-weighted mean", "worst domain"]
    for row, key in zip(rows, ("uniform_mean_nats", "reference_mean_nats", "worst_nats"), strict=True):
        assert row.values == tuple(results[key][run] for run in ("baseline", "main", "uniform"))
        assert row.difference == results[key]["main"] - results[key]["baseline"]
        assert row.best == min(results[key].values())
    assert rows[2].names == ("base64-binaries",) * 3


def test_summaries_without_the_floor(results):
    rows = views.summary_rows_without_floor(parse(results))
    assert rows[0].values[1] == results["without_floor"]["uniform_mean_nats"]["main"]
    assert views.domains_at_floor(parse(results)) == ["stdlib", "base64-binaries"]
    none_at_floor = parse(results | {"without_floor": None})
    assert views.summary_rows_without_floor(none_at_floor) == []
    assert views.domains_at_floor(none_at_floor) == []


def test_speed_up_is_a_ratio_of_steps(results):
    assert views.speed_up(parse(results | {"steps_to_match": 480.0})) == pytest.approx(2.5)
    assert views.speed_up(parse(results | {"steps_to_match": None})) is None


def test_costs_of_the_search_come_first_and_count(results):
    proxy = {"train_seconds": 100.0, "num_parameters": 10, "num_tokens": 1000}
    rows = views.cost_rows(parse(results | {"costs": {"proxy": proxy}}))
    assert [row.name for row in rows] == ["proxy", "baseline", "main", "uniform"]
    assert rows[0].flops == 6 * 10 * 1000
    unknown = views.cost_rows(parse(results | {"costs": {"proxy": proxy | {"flops": None}}}))
    assert unknown[0].flops is None
    seconds = [results["runs"][run]["train_seconds"] for run in ("baseline", "main", "uniform")]
    assert views.total_seconds(rows) == pytest.approx(100 + sum(seconds))
    assert views.total_seconds([]) is None
    shared = results["runs"] | {"unimax": results["runs"]["uniform"]}
    rows = views.cost_rows(parse(results | {"costs": {}, "runs": shared}))
    assert views.total_seconds(rows) == pytest.approx(sum(seconds))  # the same models, trained once


def test_domains_that_main_reads_more_than_four_times():
    results = make_results(3)
    results["runs"]["main"]["epochs"] = {"stdlib": 4.0, "ml-libraries": 4.1, "cpp-headers": None}
    assert views.repeated_domains(parse(results)) == ["ml-libraries"]
