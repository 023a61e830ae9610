import io
import re
from itertools import pairwise

import pytest
from rich.console import Console

from doremi.evidence.results_file import parse
from doremi.evidence.targets import LABELS
from doremi.report import views
from doremi.report.table import SummaryTable

from .hostile import NAMES
from .synthetic import ARMS, answer, make_results, nats, prior, summary


def printed(results, *, width=80, encoding="utf-8", **options):
    """What a console of this width writes to a file, line by line."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width, **options).print(SummaryTable(parse(results)))
    stream.flush()
    return [line.rstrip() for line in stream.buffer.getvalue().decode(encoding).splitlines()]


def row(lines, label):
    return next(line for line in lines if line.startswith(label)).removeprefix(label).split()


def test_domain_rows_hold_the_numbers_of_the_results(results):
    lines = printed(results)
    losses = [nats(results, arm, "base64-binaries") for arm in ARMS]
    assert row(lines, "base64-binaries") == [
        "4.19M",
        f"{prior(results)['base64-binaries']:.2%}",
        f"{answer(results)['base64-binaries']:.2%}",
        *(f"{loss:.3f}" for loss in losses),
        f"{losses[1] - losses[0]:+.3f}",
    ]


def test_every_domain_is_there(results):
    text = "\n".join(printed(results, width=120))
    assert [name for name in results["domains"] if name not in text] == []


def test_summaries_with_and_without_the_floor(results):
    lines = printed(results, width=100)
    cut = lines.index("without floor:")
    for label, key in (
        ("uniform mean", "uniform_mean"),
        ("reference-", "reference_mean"),
        ("worst domain", "worst"),
    ):
        whole = [summary(results, arm, key) for arm in ARMS]
        floor = [results["searches"]["doremi"]["floor"]["summaries"][arm][key] for arm in ARMS]
        for part, values in ((lines[:cut], whole), (lines[cut:], floor)):
            assert row(part, label) == [*(f"{value:.3f}" for value in values), f"{values[1] - values[0]:+.3f}"]
    assert "At the floor, below a tenth of the reference weight: stdlib, base64-binaries" in lines


def test_no_floor_no_second_summary(results):
    text = "\n".join(printed(results | {"searches": {}}))
    assert "floor" not in text
    assert text.count("\nuniform mean  ") == 1


def test_many_domains_at_the_floor_are_counted(results):
    search = results["searches"]["doremi"]
    floor = search["floor"] | {"domains": list(results["domains"])}
    assert "unit-tests, type-stubs, licences-and-readmes and 4 more" in " ".join(
        printed(results | {"searches": {"doremi": search | {"floor": floor}}})
    )


def test_intervals_of_the_summaries_and_of_every_other_pair(results):
    lines = printed(results)
    cut = lines[lines.index("doremi - natural:") :]
    first, *others = results["comparisons"]
    expected = {f"  {label}": first["summaries"][key] for key, label in LABELS.items()}
    expected |= {f"  {pair['tuned']} - {pair['baseline']}": pair["summaries"]["uniform_mean"] for pair in others}
    for label, judged in expected.items():
        assert " ".join(row(cut, label)) == (
            f"{judged['value']:+.3f} {judged['low']:+.3f} to {judged['high']:+.3f} {judged['outcome']}"
        )
    assert any(line.endswith("over seeds  outcome") for line in lines)


def test_closing_lines(results):
    text = " ".join(printed(results))
    found = results["comparisons"][0]
    tally, factor = found["tally"], found["speed_up"]["factor"]
    assert (
        f"Domains, Holm-corrected over seeds: better on {tally['num_better']}, no difference on "
        f"{tally['num_no_difference']}, worse on {tally['num_worse']} of 12 domains" in text
    )
    assert (
        f"Speed-up {factor['value']:.2f}x: doremi reached the final uniform mean of natural at step "
        f"{found['speed_up']['steps_to_match']['value']:,.0f} of 1,200, 95 % interval {factor['low']:.2f}x "
        f"to {factor['high']:.2f}x" in text
    )
    ratio = results["searches"]["doremi"]["cost"]["search_over_main"]
    assert f"Cost: finding the weights (reference and proxy) took {ratio:.2f}x the FLOPs of" in text
    assert text.endswith(results["verdict"])


def test_closing_lines_of_one_seed_say_that_documents_stand_behind_them():
    lines = printed(make_results(12, num_seeds=1))
    assert any(line.endswith("over documents  outcome") for line in lines)
    assert "Domains, Holm-corrected over documents: better on" in " ".join(lines)
    assert row(lines, "  uniform mean")[1:] == ["-", "not", "measured"]
    assert "no interval: 1 of the 3 seeds that an interval needs" in " ".join(lines)


def test_where_no_domain_has_an_interval_none_is_counted():
    results = make_results(12, num_seeds=1)
    headline = results["comparisons"][0]
    for judged in headline["documents"]["domains"].values():
        judged |= {"low": None, "high": None, "outcome": "not measured", "method": "none: few documents"}
    counts = {"num_better": 0, "num_no_difference": 0, "num_worse": 0, "num_not_measured": 12, "num_domains": 12}
    headline["documents"]["tally"] = counts
    text = " ".join(printed(results))
    assert "no interval on any of 12 domains: too few seeds and too few held-out documents" in text
    assert f"Lower than natural on {views.num_lower(parse(results))} of 12 domains" in text
    assert "better on 0" not in text.split("Domains, Holm")[1]


def test_closing_lines_where_nothing_was_compared(results):
    lines = printed(results | {"comparisons": [], "verdict": "Nothing was compared.", "recommendation": None})
    text = " ".join(lines)
    assert "Lower than" not in text
    assert "Speed-up" not in text
    assert text.endswith("Nothing was compared.")
    natural = nats(results, "natural", "stdlib")
    assert row(lines, "stdlib")[3:] == [f"{nats(results, arm, 'stdlib'):.3f}" for arm in ARMS]
    assert f"{natural:.3f}" in row(lines, "stdlib")


def test_a_seed_that_never_catches_up_is_said_to():
    results = make_results(3)
    nothing = {"value": None, "low": None, "high": None, "p_value": None, "method": "none: 0 of 1 seeds reach it"}
    results["comparisons"][0]["speed_up"] |= {
        "num_seeds": 1, "num_reached": 0, "factor": nothing, "steps_to_match": nothing
    }  # fmt: skip
    text = " ".join(printed(results))
    assert "Speed-up: doremi did not reach the final uniform mean of natural in 1,200 steps" in text


def test_the_recommendation_is_printed_before_the_verdict(results):
    text = " ".join(printed(results))
    assert f"Recommended: {results['recommendation']['reason']} {results['verdict']}" in text


def test_text_that_is_not_trained_on_follows_the_domains(results):
    more = {"answers": {"tokens": 10, "trained_on": False}}
    arms = {a: arm | {"nats": arm["nats"] | {"answers": [5.0, 6.0, 7.0]}} for a, arm in results["arms"].items()}
    lines = printed(results | {"sets": results["sets"] | more, "arms": arms})
    assert row(lines, "answers") == ["-", "-", "-", "6.000", "6.000", "6.000", "0.000"]


def test_alarms_are_named_by_kind(results):
    alarm = {"name": "drift", "finding": "it drifts", "remedy": "wait"}
    assert "Alarms (drift): the report says" in " ".join(
        printed(results | {"searches": {"doremi": {"alarms": [alarm, alarm]}}})
    )


def test_print_shows_the_same_as_a_console(results, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print(SummaryTable(parse(results)))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == printed(results)


@pytest.mark.parametrize("columns", ["20", "60"])
def test_print_leaves_no_column_out_of_a_narrow_console(results, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    print(SummaryTable(parse(results)))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == printed(results)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_pipe_gets_plain_text_of_80_columns(results, encoding):
    lines = printed(results, encoding=encoding)
    assert max(map(len, lines)) == 80
    assert "\n".join(lines).isascii()
    assert "\x1b" not in "\n".join(lines)


def test_more_arms_than_fit_follow_in_tables_of_their_own():
    arms = ("natural", "doremi", "uniform", "unimax", "temperature-0.3", "natural-without-the-floor", "dsir")
    results = make_results(5, arms=arms)
    lines = printed(results)
    cut = lines.index("Further arms")
    assert lines[cut + 1 :].count("Further arms") == 0
    losses = [f"{nats(results, arm, 'stdlib'):.3f}" for arm in arms]
    assert row(lines[:cut], "stdlib")[3:6] == losses[:3]
    assert row(lines[cut:], "stdlib") == losses[3:]
    assert max(map(len, lines)) == 80
    wide = printed(results, width=160)
    assert "Further arms" not in wide
    assert len(row(wide, "stdlib")) == 4 + len(arms)


def test_very_many_arms_take_several_tables():
    arms = ("natural", "doremi", *(f"weights-{i:03d}" for i in range(12)))
    lines = printed(make_results(2, arms=arms))
    starts = [i for i, line in enumerate(lines) if line == "Further arms"] + [len(lines)]
    assert len(starts) == 4
    further = [len(row(lines[a:b], "stdlib")) for a, b in pairwise(starts)]
    assert sum(further) == 12


@pytest.mark.parametrize(("encoding", "force_terminal"), [("utf-8", True), ("utf-8", False), ("ascii", False)])
def test_names_are_shown_literally_and_cannot_steer_the_terminal(encoding, force_terminal):
    results = make_results(names=list(NAMES), arms=("natural", "doremi", "[red]x[/red]"))
    results["verdict"] = "[bold]\x1b[2J :smile:"
    text = "\n".join(
        printed(results, width=200, encoding=encoding, force_terminal=force_terminal, color_system="truecolor")
    )
    for shown in (*NAMES.values(), "[bold]\\x1b[2J :smile:"):
        assert shown.encode(encoding, "backslashreplace").decode(encoding) in text
    assert text.splitlines()[3].split()[-3:] == ["doremi", "[red]x[/red]", "natural"]
    assert not {"\u202e", "\u2028", "\t"} & set(text)
    assert not [code for code in text.split("\x1b")[1:] if not code.startswith(("[1m", "[0m"))]


def test_lowest_loss_is_bold_in_a_terminal(results):
    text = "\n".join(printed(results, force_terminal=True, color_system="truecolor"))
    bold = re.findall(r"\x1b\[1m *([\d.]+)\x1b\[0m", text)
    assert [f"{min(nats(results, arm, name) for arm in ARMS):.3f}" in bold for name in results["domains"]] == [
        True
    ] * 12
    assert len(bold) == 12 + 2 * 3


def test_what_was_not_measured_is_a_dash(results):
    results = make_results(2)
    results["domains"]["stdlib"]["prior"] = None
    for arm, values in {"natural": [None] * 3, "doremi": [3.0] * 3, "uniform": [3.0, None, 3.0]}.items():
        results["arms"][arm]["nats"]["stdlib"] = values
    assert row(printed(results), "stdlib")[1:] == [
        "-",
        f"{answer(results)['stdlib']:.2%}",
        "-",
        "3.000",
        "-",
        "-",
    ]
