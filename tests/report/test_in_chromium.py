"""The page in a real browser: charts drawn, in either colour scheme, without an error or a request."""

import re
import shutil
import subprocess

import pytest

from doremi.report.render import write_report

from .synthetic import make_results, write_run

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


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_charts_are_drawn_in_the_colours_of_the_scheme(tmp_path, scheme):
    report = write_report(write_run(tmp_path / "run", make_results(22)))
    document, console = opened(report, tmp_path / "profile", scheme=scheme)
    assert console == []
    assert charts_of(document) == [8, 8, 8, 3]
    assert set(re.findall(r'<g class="[xy]tick"><text[^>]*fill: (rgb\([^)]*\))', document)) == {MUTED[scheme]}


def test_two_hundred_domains_show_the_largest_changes(tmp_path):
    document, console = opened(write_report(write_run(tmp_path / "run", make_results(200))), tmp_path / "profile")
    assert console == []
    assert charts_of(document) == [8, 8, 8, 3]


def test_hostile_text_runs_nothing_and_shows_in_the_charts(tmp_path, hostile_report):
    document, console = opened(hostile_report, tmp_path / "profile")
    assert console == []
    assert charts_of(document) == [8, 8, 8, 4]
    assert re.search(r'class="legendtext"[^>]*>&lt;i&gt;x&lt;/i&gt;\\x1b</text>', document)


def test_a_page_without_charts_has_no_errors(tmp_path):
    results = make_results(3) | {"curves": {}, "trajectory": None}
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
