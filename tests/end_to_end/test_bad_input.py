"""Every mistake gives one clear error, exit code 2 and no traceback; nothing is lost."""

from __future__ import annotations

import json

import pytest

from doremi.cli import main


def run(capsys, *arguments):
    code = main([*map(str, arguments)])
    return code, capsys.readouterr().err


def overrides(*settings):
    return [part for setting in settings for part in ("--set", setting)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["corpus.inputs=[{path: /nowhere/x.jsonl, domain: a}]"], "/nowhere/x.jsonl"),
        (["training.sequence_length=100000"], "fewer than one sequence of 100000"),
        (["training.global_batch_size=2"], "global_batch_size is 2 for 3 domains"),
        (["weights.reference={prose: -1, code: 1}"], "weight of 'prose' is -1"),
        (["weights.reference={prose: .nan, code: 1}"], "weight of 'prose' is nan"),
        (["weights.reference={wiki: 1, code: 1}"], "no such domain in the corpus: 'wiki'; it has 'code', 'junk'"),
        (["weights.reference={code: 1}"], "the experiment has one domain, 'code'"),
        (["weights.reference=missing.json"], "'missing.json' is neither natural, nor uniform, nor a file"),
        (["weights.baselines=[nope]"], "'nope' is neither natural"),
        (["trainng.steps=3"], "did you mean training?"),
        (["models.proxy=gigantic"], "no preset 'gigantic'; there are tiny"),
        (["models.main=no/such/model"], "no/such/model"),
        (["training.arguments={learning_rate: 1}"], "set training.learning_rate instead"),
        (["training.arguments={bf17: true}"], "no such argument; did you mean bf16?"),
        (["training.micro_batch_size=4"], "use 4 or 8"),
    ],
)  # fmt: skip
def test_settings(tmp_path, capsys, recipe, settings, message):
    code, stderr = run(capsys, "run", recipe, "--out", tmp_path / "out", *overrides(*settings))
    assert code == 2
    assert message in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out" / "rounds").exists()  # found before any training


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "check that they are not empty"),
        ('{"text": "x", "meta": {"domain": "a"}}\n{"text": \n', "corpus.jsonl:2"),
        ('{"body": "x", "meta": {"domain": "a"}}\n', "body"),
        ('{"text": "x", "meta": {"source": "a"}}\n', "source"),
    ],
)
def test_corpus(tmp_path, capsys, corpus, recipe, text, message):
    corpus.write_text(text)
    code, stderr = run(capsys, "prepare", recipe, "--out", tmp_path / "out")
    assert code == 2
    assert message in stderr
    assert "Traceback" not in stderr


def test_one_domain_corpus(tmp_path, capsys, corpus, recipe):
    lines = [json.dumps({"text": f"some words number {i} " * 20, "meta": {"domain": "only"}}) for i in range(80)]
    corpus.write_text("\n".join(lines))
    code, stderr = run(capsys, "prepare", recipe, "--out", tmp_path / "out")
    assert code == 2
    assert "the experiment has one domain, 'only'; weights need at least two" in stderr


def test_main_before_there_are_weights(tmp_path, capsys, recipe):
    code, stderr = run(capsys, "train", recipe, "--run", "main", "--out", tmp_path / "out")
    assert code == 2
    assert "run `doremi train --run proxy` first" in stderr


def test_recipe_and_weights_files(tmp_path, capsys):
    (tmp_path / "w.json").write_text('{"a": 1,\n "b": }')
    assert run(capsys, "weights", "show", tmp_path / "w.json") == (
        2,
        f"doremi: {tmp_path}/w.json:2:7: not valid JSON: Expecting value\n",
    )
    code, stderr = run(capsys, "run", tmp_path / "none.yaml")
    assert code == 2
    assert "no such recipe" in stderr
    assert run(capsys, "report", tmp_path)[0] == 2


def test_dry_run_prints_the_stages_and_runs_nothing(tmp_path, capsys, recipe):
    assert main(["run", str(recipe), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    stdout = capsys.readouterr().out
    assert "5,760 tokens" in stdout  # 30 steps of 6 rows of 32
    assert "train proxy" in stdout
    assert not (tmp_path / "out").exists()


def test_help_lists_every_key_of_a_recipe(capsys):
    assert main(["run", "--help-recipe"]) == 0
    assert "reweighting.smoothing = 0.001" in capsys.readouterr().out
