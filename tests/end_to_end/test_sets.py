"""A set that is not trained on, through the command line: prepared, scored, compared and shown by name."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.end_to_end.conftest import doremi, write_corpus, write_recipe

NAME = "client <b>&\x1b[31m"  # as any other text of users


@pytest.mark.slow
def test_from_the_recipe_to_the_report(tmp_path):
    lines = write_corpus(tmp_path).read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines[:8]]
    (tmp_path / "client.jsonl").write_text("".join(json.dumps({"letter": text}) + "\n" for text in texts))
    path = write_recipe(tmp_path, steps=4, eval_steps=2, save_steps=4)
    recipe = yaml.safe_load(path.read_text())
    recipe["evaluation"]["sets"] = [{"name": NAME, "path": str(tmp_path / "client.jsonl"), "text_field": "letter"}]
    del recipe["evaluation"]["max_tokens_per_domain"]
    recipe["methods"] = ["natural", "doremi"]
    path.write_text(yaml.safe_dump(recipe))

    out = tmp_path / "out"
    code, stdout, stderr = doremi("run", path, "--out", out)
    assert code == 0, stderr
    assert "\x1b[31m" not in stdout
    code, shown, _ = doremi("corpus", "show", out, "--json")
    corpus = json.loads(shown)
    assert [found["documents"] for found in corpus["sets"]] == [8]
    held_out = sum(domain["held_out_documents"] for domain in corpus["domains"])
    trained = sum(domain["documents"] for domain in corpus["domains"])
    assert trained + held_out + corpus["left_out_for_sets"] == 600
    assert 0 < corpus["left_out_for_sets"] <= 8  # but for those of the eight that are held out, which stay

    results = json.loads((out / "results.json").read_text())
    assert results["sets"][NAME]["documents"] == 8
    assert results["sets"][NAME]["bytes"] == sum(map(len, texts))
    assert not results["sets"][NAME]["trained_on"]
    assert list(results["domains"]) == ["code", "junk", "prose"]
    [compared] = results["comparisons"]
    nats = {label: arm["nats"][NAME][0] for label, arm in results["arms"].items()}
    assert compared["sets"][NAME]["value"] == pytest.approx(nats["doremi"] - nats["natural"])
    assert compared["documents"]["sets"][NAME]["value"] == pytest.approx(compared["sets"][NAME]["value"])
    curve = results["arms"]["doremi"]["curve"]
    assert (curve["steps"], list(curve["nats"])) == ([2, 4], ["code", "junk", "prose", NAME])
    assert "<b>&" not in (out / "report.html").read_text()

    code, _, stderr = doremi("run", path, "--out", out, "--set", "evaluation.sets=[]")
    assert code == 2
    assert "belongs to another recipe: evaluation.sets differs" in stderr
