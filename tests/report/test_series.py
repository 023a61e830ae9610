import pytest

from doremi.evidence.results_file import parse
from doremi.report.series import MAX_POINTS, chart_data, num_averaged, running_mean, stride
from doremi.report.views import domain_order

from .synthetic import answer, make_results, prior


def test_trajectory_is_in_the_order_of_the_largest_change(results):
    data = chart_data(parse(results))["trajectory"]
    changes = [abs(answer(results)[name] - prior(results)[name]) for name in data["names"]]
    assert changes == sorted(changes, reverse=True)
    for row, name in enumerate(data["names"]):
        assert data["series"]["average_weights"][row] == pytest.approx(
            results["searches"]["doremi"]["trajectory"]["average_weights"][name], rel=1e-4
        )


def test_losses_hold_the_three_summaries_and_then_every_domain(results):
    data = chart_data(parse(results))["losses"]
    assert (data["runs"], data["control"]) == (["natural", "doremi", "uniform"], "natural")
    curves = [results["arms"][arm]["curve"] for arm in data["runs"]]
    assert data["steps"] == [curve["steps"] for curve in curves]
    expected = [
        *([curve["summaries"][key] for curve in curves] for key in ("uniform_mean", "reference_mean", "worst")),
        *([curve["nats"][name] for curve in curves] for name in domain_order(parse(results))),
    ]
    for view, series in zip(data["views"], expected, strict=True):
        for run, values in enumerate(series):
            assert view[run] == pytest.approx(values, rel=1e-4)


def test_long_trajectories_are_thinned_and_keep_their_end():
    results = make_results(3, num_recorded=1200)
    data = chart_data(parse(results))["trajectory"]
    assert stride(1200) == 3
    assert data["steps"] == list(range(3, 1201, 3))
    assert len(data["steps"]) <= MAX_POINTS
    assert data["series"]["dro_weights"][0][-1] == pytest.approx(
        results["searches"]["doremi"]["trajectory"]["dro_weights"][data["names"][0]][-1], rel=1e-4
    )


@pytest.mark.parametrize(("num_points", "step"), [(0, 1), (1, 1), (500, 1), (501, 2), (1000, 2), (1001, 3)])
def test_stride(num_points, step):
    assert stride(num_points) == step


def test_running_mean_is_centred_and_skips_nulls():
    assert running_mean([1.0, 2.0, 6.0, None, 4.0], window=3) == [1.5, 3.0, 4.0, 5.0, 4.0]
    assert running_mean([None, None], window=1) == [None, None]
    assert running_mean([1.0, 5.0], window=1) == [1.0, 5.0]
    assert [num_averaged(n) for n in (0, 79, 80, 240)] == [1, 1, 3, 7]


def test_excess_losses_are_averaged(results):
    data = chart_data(parse(results))["trajectory"]
    raw = results["searches"]["doremi"]["trajectory"]["excess_losses"][data["names"][0]]
    assert data["series"]["excess_losses"][0][100] == pytest.approx(sum(raw[97:104]) / 7, rel=1e-4)


def test_domains_and_runs_without_a_series_stay_empty(results):
    lacking = make_results(12)
    del lacking["searches"]["doremi"]["trajectory"]["dro_weights"]["stdlib"]
    del lacking["arms"]["uniform"]["curve"]
    data = chart_data(parse(lacking))
    row = data["trajectory"]["names"].index("stdlib")
    assert data["trajectory"]["series"]["dro_weights"][row] == []
    assert data["losses"]["runs"] == ["natural", "doremi"]


def test_labels_are_text_for_plotly():
    data = chart_data(parse(make_results(names=["<b>a</b>", "\x1b"], arms=("natural", "doremi", "<i>r</i>"))))
    assert set(data["trajectory"]["names"]) == {"&lt;b&gt;a&lt;/b&gt;", "\\x1b"}
    assert data["losses"]["runs"] == ["natural", "doremi", "&lt;i&gt;r&lt;/i&gt;"]


def test_nothing_recorded():
    results = make_results(3) | {"searches": {}}
    for arm in results["arms"].values():
        arm["curve"] = None
    assert chart_data(parse(results)) == {"trajectory": None, "losses": None, "tasks": None}
