"""`doremi search` alone: weights and a report, no main model; then the verified report in its place."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
import yaml

from doremi import DomainWeights, files
from doremi.cli.main import main
from tests import trained
from tests.end_to_end.conftest import write_corpus, write_recipe


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Recipe and run directory of `printed`."""
    folder = tmp_path_factory.mktemp("search")
    write_corpus(folder)
    recipe = write_recipe(folder, steps=6, eval_steps=3, save_steps=3, logging_steps=2)
    content = yaml.safe_load(recipe.read_text())
    content["methods"] = ["natural", "uniform", {"doremi": {"seeds": 2}}]
    recipe.write_text(yaml.safe_dump(content))
    return recipe, folder / "out"


@pytest.fixture(scope="module")
def printed(searched):
    """What the search printed, once it is finished."""
    recipe, out = searched
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        assert main(["search", str(recipe), "--out", str(out)]) == 0
    return stdout.getvalue()


def test_a_search_leaves_weights_and_a_report_and_no_main_model(searched, printed):
    out = searched[1]
    assert trained.names(out) == {"reference", "proxy", "proxy-seed-1"}
    assert not (out / "results.json").exists()
    page, twin = (out / "report.html").read_text(), (out / "report.md").read_text()
    for text in (page, twin):
        assert "Not verified: no model was trained to test these weights" in text
        assert "prose" in text
    weights = DomainWeights.from_json(out / "weights.json")
    provenance = json.loads((out / "weights.json").read_text())["provenance"]
    for name, weight in weights.items():
        assert f"{name:<5}  {weight:8.4f} ± {provenance['spread'][name]:.4f}" in printed
        assert f"{weight:.2%} +/- {provenance['spread'][name]:.2%}" in twin
    assert all(f"{alarm['name']}: {alarm['finding']}" in printed for alarm in provenance["alarms"])
    assert f"weights  {out / 'weights.json'}" in printed
    assert f"report   {out / 'report.html'}" in printed


def test_what_is_written_is_what_was_found(searched, printed):
    """Costs are those of the models' own markers, each once."""
    out = searched[1]
    found = json.loads((out / "search.json").read_text())
    assert list(found["arms"]) == ["natural", "uniform", "doremi"]
    assert found["arms"]["doremi"]["weights"] == dict(DomainWeights.from_json(out / "answers/doremi.json"))
    assert found["arms"]["uniform"]["weights"] == pytest.approx(dict.fromkeys(found["domains"], 1 / 3))
    tokens = {name: domain["tokens"] for name, domain in found["domains"].items()}
    assert {name: domain["prior"] for name, domain in found["domains"].items()} == pytest.approx(
        {name: number / sum(tokens.values()) for name, number in tokens.items()}
    )
    search = found["searches"]["doremi"]
    assert list(found["searches"]) == ["doremi"]
    assert list(search["costs"]) == ["reference", "proxy"]
    markers = [files.read_marker(trained.folder(out, label)) for label in ("proxy", "proxy, seed 1")]
    cost = search["costs"]["proxy"]
    assert cost["num_tokens"] == 2 * 6 * 6 * 32
    assert cost["train_seconds"] == pytest.approx(sum(marker["train_seconds"] for marker in markers), abs=0.001)
    assert cost["flops"] > search["costs"]["reference"]["flops"] > 0
    assert search["trajectory"]["steps"][-1] == 6
    last = {name: values[-1] for name, values in search["trajectory"]["average_weights"].items()}
    first = markers[0]["objective"]
    assert last == pytest.approx({n: w / 6 for n, w in zip(first["names"], first["weights_sum"], strict=True)})


def test_the_report_of_a_search_can_be_written_again(searched, printed, capsys):
    out = searched[1]
    before = (out / "report.html").read_bytes(), (out / "report.md").read_bytes()
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    assert ((out / "report.html").read_bytes(), (out / "report.md").read_bytes()) == before


def test_a_damaged_search_is_one_line(searched, printed, capsys):
    path = searched[1] / "search.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert main(["report", str(path.parent)]) == 2
    error = capsys.readouterr().err
    assert "search.json" in error
    assert error.count("\n") == 1
    path.write_bytes(whole)


@pytest.mark.slow
def test_a_run_puts_the_verified_report_in_its_place(searched, printed):
    recipe, out = searched
    assert main(["run", str(recipe), "--out", str(out)]) == 0
    verdict = json.loads((out / "results.json").read_text())["verdict"]
    twin = (out / "report.md").read_text()
    assert verdict.split(",")[0] in twin
    assert "Not verified" not in twin
    assert main(["search", str(recipe), "--out", str(out)]) == 0
    assert (out / "report.md").read_text() == twin
