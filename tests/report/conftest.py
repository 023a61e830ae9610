from pathlib import Path
from typing import Any

import pytest

from doremi.report.render import write_report

from .hostile import NAMES
from .page import Page, parse_page
from .synthetic import make_results, write_run


@pytest.fixture(scope="session")
def results() -> dict[str, Any]:
    return make_results(12)


@pytest.fixture(scope="session")
def page(results, tmp_path_factory) -> Page:
    return parse_page(write_report(write_run(tmp_path_factory.mktemp("run"), results)).read_text())


@pytest.fixture(scope="session")
def hostile_report(tmp_path_factory) -> Path:
    """The report of a run in which every text that comes from outside tries to break out."""
    results = make_results(names=list(NAMES), arms=("natural", "doremi", "uniform", "<i>x</i>\x1b"))
    results["verdict"] = "</title></h1><script>alert(4)</script> " + results["verdict"]
    results["provenance"] |= {"<u>key</u>": "</pre><script>alert(5)</script>", "command": "'\"><img src=x>"}
    results["recommendation"]["reason"] = "</p><script>alert(10)</script>"
    results["arms"]["doremi"] |= {"method": "<img src=//x>", "folders": ["<svg onload=alert(6)>"] * 3}
    run_dir = write_run(tmp_path_factory.mktemp("hostile"), results)
    (run_dir / "recipe.yaml").write_text("a: </pre><script>alert(7)</script>\nb: \u202e\n", encoding="utf-8")
    return write_report(run_dir)
