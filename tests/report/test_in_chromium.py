"""The page in a real browser: charts drawn, in either colour scheme, without an error or a request."""

import html
import json
import re
import shutil
import subprocess

import pytest

from doremi.report.render import write_report
from doremi.report.side_by_side import write_comparison

from .synthetic import ARMS, make_results, make_tasks, write_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--virtual-time-budget=5000", "--window-size=1200,1000",
)  # fmt: skip
DARK, LIGHT = 0, 1  # values of preferredColorScheme
MUTED = {DARK: "rgb(163, 166, 174)", LIGHT: "rgb(93, 96, 104)"}  # --muted of report.css: the charts' text


def opened(report, profile, *, scheme=LIGHT):
    """The document after its scripts ran, and what the browser's console said."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={profile}", f"--blink-settings=preferredColorScheme={scheme}",
         "--enable-logging=stderr", "--dump-dom", report.as_uri()],
        capture_output=True, text=True, timeout=120, check=True, encoding="utf-8", errors="backslashreplace",
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def charts_of(document):
    """For every chart the number of lines drawn in it."""
    charts = re.split(r'<div class="chart[^"]*js-plotly-plot"', document)[1:]
    assert all('class="main-svg"' in chart for chart in charts)
    return [len(re.findall(r'<g class="trace scatter', chart.split("</figure>")[0])) for chart in charts]


def shown_marks(document):
    """Names and number of marks of every row of the forest plots that are not hidden."""
    pairs = re.findall(r'<div class="pair" data-pair="\d+"(?: hidden="")?>.*?</table>', document, re.DOTALL)
    shown = "".join(pair for pair in pairs if "hidden" not in pair.split(">")[0])
    rows = [row for row in shown.split("<tr")[1:] if 'scope="row"' in row]
    names = [html.unescape(re.search(r'<bdi class="name">(.*?)</bdi>', row)[1]) for row in rows]
    return {name: row.count('<i class="dot') for name, row in zip(names, rows, strict=True)}


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_charts_are_drawn_in_the_colours_of_the_scheme(tmp_path, scheme):
    results = make_results(22)
    report = write_report(write_run(tmp_path / "run", results))
    document, console = opened(report, tmp_path / "profile", scheme=scheme)
    assert console == []
    assert results["verdict"] in html.unescape(document)
    assert charts_of(document) == [8, 8, 8, 3 + 9]
    assert set(re.findall(r'<g class="[xy]tick"><text[^>]*fill: (rgb\([^)]*\))', document)) == {MUTED[scheme]}


def test_two_hundred_domains_show_the_largest_changes(tmp_path):
    results = make_results(200)
    document, console = opened(write_report(write_run(tmp_path / "run", results)), tmp_path / "profile")
    assert console == []
    summaries = ("uniform mean", "reference-weighted mean", "worst domain")
    assert shown_marks(document) == dict.fromkeys([*summaries, *results["domains"]], 1)
    assert charts_of(document) == [8, 8, 8, 3 + 9]


def test_hostile_text_runs_nothing_and_shows_in_the_charts(tmp_path, hostile_report):
    document, console = opened(hostile_report, tmp_path / "profile")
    assert console == []
    assert charts_of(document) == [8, 8, 8, 4 + 12]
    assert re.search(r'class="legendtext"[^>]*>&lt;i&gt;x&lt;/i&gt;\\x1b</text>', document)


def with_own_script(report, script):
    """The page with another script at its end, which its policy would not let run."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report.read_text())
    report.write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    return report


def test_another_pair_a_domain_and_a_difference_can_be_picked(tmp_path):
    """And seeds are drawn minus the control of the same seed."""
    results = make_results(22)
    report = with_own_script(
        write_report(write_run(tmp_path / "run", results)),
        """const change = (element, value, event) => {
          element.value = value; element.dispatchEvent(new Event(event, {bubbles: true}));
        };
        change(document.getElementById("pair"), "1", "change");
        change(document.querySelector("#differences input[type=search]"), "ARX", "input");
        document.querySelector("[name=loss-as][value=difference]").click();
        document.title = JSON.stringify(document.getElementById("loss-chart").data.map((line) => line.y.at(-1)));
        change(document.getElementById("loss-view"), "3", "change");""",
    )
    document, console = opened(report, tmp_path / "profile")
    assert console == []
    hidden = re.findall(r'<div class="pair" data-pair="(\d)"( hidden="")?>', document)
    assert [pair for pair, is_hidden in hidden if not is_hidden] == ["1"]
    table = re.search(r'<tbody class="of-domains">.*?</tbody>', document, re.DOTALL)[0]
    assert re.findall(r'<tr>\s*<th scope="row"><bdi class="name">(.*?)</bdi>', table) == ["ArXiv"]
    assert charts_of(document)[3] == 3  # a single domain has no lines for seeds
    drawn = json.loads(re.search("<title>(.*?)</title>", document)[1])
    final = [arm["summaries"]["uniform_mean"] for arm in results["arms"].values()]
    expected = [value - control for arm in final for value, control in zip(arm, final[0], strict=True)]
    assert drawn[:9] == pytest.approx(expected, abs=2e-4)  # five digits are drawn
    assert drawn[9:] == pytest.approx([(sum(arm) - sum(final[0])) / 3 for arm in final], abs=2e-4)


def test_the_comparison_of_run_directories_needs_no_script(tmp_path):
    paths = [write_run(tmp_path / name, make_results(22, seed=seed)) for seed, name in enumerate(("one", "two"))]
    document, console = opened(write_comparison(paths), tmp_path / "profile")
    assert console == []
    assert "<script" not in document
    assert document.count('<i class="dot colour-') == 2 + 2 * 22  # the legend and the domains


def test_the_average_over_tasks_is_drawn(tmp_path):
    results = make_results(3) | {"tasks": make_tasks(ARMS)}
    document, console = opened(write_report(write_run(tmp_path / "run", results)), tmp_path / "profile")
    assert console == []
    assert charts_of(document)[4] == 3


def test_a_loss_that_was_measured_once_is_a_point(tmp_path):
    results = make_results(3)
    for arm in results["arms"].values():
        last = {
            part: {key: values[-1:] for key, values in arm["curve"][part].items()} for part in ("nats", "summaries")
        }
        arm["curve"] = {"steps": arm["curve"]["steps"][-1:], **last}
    document, console = opened(write_report(write_run(tmp_path / "run", results)), tmp_path / "profile")
    assert console == []
    chart = document.split('id="loss-chart"')[1].split("</figure>")[0]
    assert len(re.findall(r'<path class="point"', chart)) == 3


def test_a_page_without_charts_has_no_errors(tmp_path):
    results = make_results(3) | {"searches": {}}
    for arm in results["arms"].values():
        arm["curve"] = None
    document, console = opened(write_report(write_run(tmp_path / "run", results)), tmp_path / "profile")
    assert console == []
    assert charts_of(document) == []


def test_a_script_that_slipped_in_would_not_run(tmp_path, results):
    report = write_report(write_run(tmp_path / "run", results))
    report.write_text(report.read_text().replace("<main>", "<main><script>document.title = 'taken over'</script>"))
    document, console = opened(report, tmp_path / "profile")
    assert "<title>taken over" not in document
    assert len(console) == 1
    assert "Content Security Policy" in console[0]
