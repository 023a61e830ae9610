import pytest

from doremi.evidence.results_file import parse
from doremi.report import views

from .synthetic import ARMS, answer, make_results, nats, prior, summary


def test_difference_is_lead_minus_control_in_either_unit(results):
    for metric in views.Metric:
        for row in views.domain_rows(parse(results), metric=metric):
            losses = {
                arm: nats(results, arm, row.name)
                if metric is views.Metric.NATS
                else results["arms"][arm]["bits_per_byte"][row.name]
                for arm in ARMS
            }
            assert row.losses == tuple(losses.values())
            assert row.difference == losses["doremi"] - losses["natural"]


def test_ratio_of_weights():
    results = make_results(2)
    results["domains"]["stdlib"]["prior"], results["domains"]["ml-libraries"]["prior"] = 0.2, 0.0
    answer(results).update({"stdlib": 0.5, "ml-libraries": 0.5})
    rows = {row.name: row.ratio for row in views.weights_rows(parse(results))}
    assert rows == {"stdlib": pytest.approx(2.5), "ml-libraries": None}


def test_summaries_come_from_their_own_fields(results):
    rows = views.summary_rows(parse(results))
    assert [row.label for row in rows] == ["uniform mean", "reference-weighted mean", "worst domain"]
    for row, key in zip(rows, ("uniform_mean", "reference_mean", "worst"), strict=True):
        assert row.values == tuple(summary(results, arm, key) for arm in ARMS)
        assert row.difference == summary(results, "doremi", key) - summary(results, "natural", key)
        assert row.best == min(row.values)
    assert rows[2].names == ("base64-binaries",) * 3


def test_the_target_is_the_first_summary():
    for target, label in (("reference", "reference-weighted mean"), ("worst", "worst domain")):
        rows = views.summary_rows(parse(make_results(3, target=target)))
        assert (rows[0].label, len(rows)) == (label, 3)
    results = make_results(3, target={"stdlib": 3.0, "cpp-headers": 1.0})
    row, *others = views.summary_rows(parse(results))
    assert (row.label, len(others)) == ("target", 3)
    assert row.values[1] == pytest.approx(
        0.75 * nats(results, "doremi", "stdlib") + 0.25 * nats(results, "doremi", "cpp-headers")
    )


def test_summaries_without_the_floor(results):
    floor = results["searches"]["doremi"]["floor"]
    rows = views.summary_rows_without_floor(parse(results))
    assert rows[0].values[1] == floor["summaries"]["doremi"]["uniform_mean"]
    kept = [name for name in results["domains"] if name not in floor["domains"]]
    assert rows[0].values[1] == pytest.approx(sum(nats(results, "doremi", name) for name in kept) / len(kept))
    assert views.domains_at_floor(parse(results)) == ["stdlib", "base64-binaries"]
    none_at_floor = parse(results | {"searches": {}})
    assert views.summary_rows_without_floor(none_at_floor) == []
    assert views.domains_at_floor(none_at_floor) == []


def test_speed_up_is_a_ratio_of_steps(results):
    found = results["comparisons"][0]["speed_up"]
    assert views.speed_up(parse(results)) == pytest.approx(1200 / found["steps_to_match"]["value"])
    assert views.speed_up(parse(results | {"comparisons": []})) is None


def test_costs_of_the_search_come_first_and_count(results):
    proxy = {"train_seconds": 100.0, "num_parameters": 10, "num_tokens": 1000, "flops": 6e4}
    rows = views.cost_rows(parse(results | {"searches": {"doremi": {"costs": {"proxy": proxy}}}}))
    assert [row.name for row in rows] == ["proxy", *ARMS]
    assert rows[0].flops == 6e4
    unknown = {"doremi": {"costs": {"proxy": proxy | {"flops": None}}}, "uniform": {"costs": {"proxy": proxy}}}
    two = views.cost_rows(parse(results | {"searches": unknown}))
    assert [(row.name, row.flops) for row in two[:2]] == [("doremi: proxy", None), ("uniform: proxy", 6e4)]
    seconds = sum(sum(results["arms"][arm]["train_seconds"]) for arm in ARMS)
    assert views.total_seconds(rows) == pytest.approx(100 + seconds)
    assert views.total_seconds([]) is None
    shared = results["arms"] | {"unimax": results["arms"]["uniform"] | {"same_as": "uniform"}}
    rows = views.cost_rows(parse(results | {"searches": {}, "arms": shared}))
    assert views.total_seconds(rows) == pytest.approx(seconds)  # the same models, trained once


def test_domains_that_the_lead_reads_more_than_four_times():
    results = make_results(3)
    results["arms"]["doremi"]["epochs"] = {"stdlib": 4.0, "ml-libraries": 4.1, "cpp-headers": None}
    assert views.repeated_domains(parse(results)) == ["ml-libraries"]


def test_how_many_losses_are_lower(results):
    differences = [nats(results, "doremi", name) - nats(results, "natural", name) for name in prior(results)]
    parsed = parse(results)
    assert views.num_lower(parsed) == sum(difference < 0 for difference in differences) == 10
    assert views.num_higher(parsed) == 2
