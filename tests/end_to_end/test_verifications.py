"""One search and what is made of it: verifications with other models, cheap ones, and models that fail."""

from __future__ import annotations

import json

import pytest
import yaml

from doremi.cli.main import main
from doremi.evidence.recommending import AT_THE_PROXYS_SIZE
from tests import trained
from tests.end_to_end.conftest import write_corpus, write_recipe

WIDE = "models.main={preset: tiny, overrides: {hidden_size: 32, intermediate_size: 24}}"
SEARCHED = {"reference", "proxy"}
BROKEN = "tests.end_to_end.toys:NotANumber"


def folders(out):
    return {path.name for path in (out / "runs").iterdir()}


def run(recipe, out, *settings, verb="run"):
    return main([verb, str(recipe), "--out", str(out), *(part for each in settings for part in ("--set", each))])


def results_of(out):
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A recipe of a few steps."""
    folder = tmp_path_factory.mktemp("verifications")
    write_corpus(folder)
    path = write_recipe(folder, steps=4, eval_steps=2, save_steps=4, logging_steps=2)
    content = yaml.safe_load(path.read_text()) | {"methods": ["natural", "doremi"]}
    path.write_text(yaml.safe_dump(content))
    return path


def test_one_search_serves_every_verification(tmp_path, small, caplog):
    out = tmp_path / "out"
    caplog.set_level("INFO", logger="doremi")
    assert run(small, out, verb="search") == 0
    searched, answer = folders(out), (out / "answers/doremi.json").read_bytes()
    assert trained.names(out) == SEARCHED

    assert run(small, out, WIDE) == 0
    first = folders(out) - searched
    assert sorted(name.rpartition("-")[0] for name in first) == ["doremi", "natural"]
    first_results = results_of(out)

    caplog.clear()
    assert run(small, out, WIDE.replace("32", "24")) == 0
    second = folders(out) - searched - first
    assert sorted(name.rpartition("-")[0] for name in second) == ["doremi", "natural"]  # no proxy, no reference
    assert [message for message in caplog.messages if "finished earlier, skipped" in message] == [
        "reference: finished earlier, skipped", "proxy: finished earlier, skipped"
    ]  # fmt: skip
    parameters = [found["arms"]["doremi"]["num_parameters"] for found in (first_results, results_of(out))]
    assert parameters[0] > parameters[1]

    # of the proxy's size: natural's model is the reference that is there
    assert run(small, out, WIDE, "verify.size=proxy") == 0
    assert [name.rpartition("-")[0] for name in folders(out) - searched - first - second] == ["doremi"]
    results = results_of(out)
    assert results["verify"] == {"size": "proxy", "seeds": 1}
    assert results["verdict"].endswith(AT_THE_PROXYS_SIZE)
    assert results["recommendation"]["reason"].endswith(AT_THE_PROXYS_SIZE)
    assert AT_THE_PROXYS_SIZE not in first_results["verdict"] + first_results["recommendation"]["reason"]
    assert [folder.rpartition("-")[0] for folder in results["arms"]["natural"]["folders"]] == ["runs/reference"]
    assert (out / "answers/doremi.json").read_bytes() == answer


def test_an_arm_whose_model_fails_is_left_out_with_its_reason(tmp_path, small, capsys, caplog):
    out, methods = tmp_path / "out", f"methods=[natural, uniform, {{{BROKEN}: {{}}, label: broken}}]"
    assert run(small, out, methods) == 0
    results = results_of(out)
    assert list(results["arms"]) == ["natural", "uniform"]
    assert {(found["tuned"], found["baseline"]) for found in results["comparisons"]} == {("uniform", "natural")}
    [alarm] = results["alarms"]
    assert alarm["name"] == "failed"
    assert alarm["finding"].startswith("broken, seed 0: step 2: ")
    assert alarm["finding"].endswith("; it is left out of all tables")
    assert alarm["finding"] in (out / "report.md").read_text().replace("\\", "")
    assert "Alarms (failed)" in " ".join(capsys.readouterr().out.split())
    assert "broken: failed: step 2: " in caplog.text

    caplog.clear()
    caplog.set_level("INFO", logger="doremi")
    before = {path: path.stat().st_mtime_ns for path in trained.folder(out, "broken").iterdir()}
    assert run(small, out, methods) == 0
    assert "broken: failed earlier, skipped" in caplog.messages
    assert {path: path.stat().st_mtime_ns for path in trained.folder(out, "broken").iterdir()} == before
    assert results_of(out)["alarms"] == [alarm]


def test_a_control_that_fails_leaves_nothing_to_compare_with(tmp_path, small, capsys):
    out, methods = tmp_path / "out", f"methods=[natural, {{{BROKEN}: {{}}, label: broken}}]"
    assert run(small, out, methods, "verify.control=broken") == 1
    stderr = capsys.readouterr().err
    assert "doremi: the run failed: broken, seed 0: step 2: " in stderr
    assert "The other methods are compared with broken" in stderr
    assert "Traceback" not in stderr
    assert not (out / "results.json").exists()


def test_a_search_whose_model_fails_ends_with_its_reason(tmp_path, small, capsys):
    out = tmp_path / "out"
    assert run(small, out, "training.overrides={proxy: {learning_rate: 1.0e+30}}", verb="search") == 1
    stderr = capsys.readouterr().err
    assert "doremi: the run failed: doremi: proxy: step 2: the gradient norm is nan" in stderr
    assert "Traceback" not in stderr
    assert not (out / "weights.json").exists()
