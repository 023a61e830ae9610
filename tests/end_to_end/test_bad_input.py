"""Every mistake gives one clear error, exit code 2 and no traceback; nothing is lost."""

from __future__ import annotations

import json
import re

import pytest
from transformers import AutoConfig

from doremi import DomainWeights
from doremi.cli.main import main
from tests.conformance import zoo


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
        (["corpus.held_out_fraction=0.0001"], "no held-out text in 'code', 'junk', 'prose', so nothing to evaluate"),
        (["training.global_batch_size=2"], "global_batch_size is 2 for 3 domains"),
        (["prior={prose: -1, code: 1}"], "weight of 'prose' is -1"),
        (["prior={prose: .nan, code: 1}"], "prior.prose: nan is not finite"),
        (["prior={wiki: 1, code: 1}"], "no such domain in the corpus: 'wiki'; it has 'code', 'junk'"),
        (["prior={code: 1}"], "the experiment has one domain, 'code'"),
        (["prior=missing.json"], "'missing.json' is neither a file nor one of natural, uniform"),
        (["methods=[natural, nope, doremi]"], "'nope' is neither a file nor one of natural"),
        (["trainng.steps=3"], "did you mean training?"),
        (["models.proxy=gigantic"], "no preset 'gigantic'; there are tiny"),
        (["models.main=no/such/model"], "no/such/model"),
        (["training.arguments={learning_rate: 1}"], "set training.learning_rate instead"),
        (["training.arguments={bf17: true}"], "no such argument; did you mean bf16?"),
        (["training.arguments={label_smoothing_factor: 0.1}"], "label_smoothing_factor: 0.1 would have no"),
        (["training.micro_batch_size=4"], "use 4 or 8"),
        (["evaluation.tasks=[no/such/task.yaml]"], "task 'no/such/task.yaml': no such file or folder"),
        pytest.param(  # reads the names of all tasks of lm-eval
            ["evaluation.tasks=[no_such_task]"], "has no task 'no_such_task'; the nearest are", marks=pytest.mark.slow
        ),
    ],
)  # fmt: skip
def test_settings(tmp_path, capsys, recipe, settings, message):
    code, stderr = run(capsys, "run", recipe, "--out", tmp_path / "out", *overrides(*settings))
    assert code == 2
    assert message in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out" / "runs").exists()  # found before any training


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("bert", [], "bert is not causal"),
        ("t5", [], "t5 is no causal language model: it is an encoder-decoder"),
        ("opt", ["training.documents=separate"], "training.documents: separate is not possible with opt"),
        ("bloom", ["models.main.attn_implementation=sdpa"], "bloom models have no attn_implementation 'sdpa'"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_models_that_cannot_be_trained_so(tmp_path, capsys, recipe, command, model, settings, message):
    """Known before anything is prepared, or even made."""
    folder = tmp_path / "model"
    if model == "t5":
        AutoConfig.for_model(model).save_pretrained(folder)
    else:
        zoo.write(model, folder)
    code, stderr = run(
        capsys, command, recipe, "--out", tmp_path / "out", *overrides(f"models.main={{path: {folder}}}", *settings)
    )
    assert code == 2
    assert message in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out").exists()


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


def test_an_answer_before_there_are_weights(tmp_path, capsys, recipe):
    code, stderr = run(capsys, "train", recipe, "--run", "doremi", "--out", tmp_path / "out")
    assert code == 2
    assert "doremi: reference is not trained yet; run `doremi search` with the same recipe and --out first" in stderr


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
    assert re.search(r"train proxy +1 .* 5,760 ", stdout)  # tokens: 30 steps of 6 rows of 32
    assert not (tmp_path / "out").exists()


def test_help_lists_every_key_of_a_recipe(capsys):
    assert main(["run", "--help-recipe"]) == 0
    assert "doremi.smoothing = 0.001" in capsys.readouterr().out


def test_an_unknown_run_lists_those_that_exist(tmp_path, capsys, recipe):
    code, stderr = run(capsys, "train", recipe, "--run", "mian", "--out", tmp_path / "out")
    assert code == 2
    assert "no run 'mian'; there are reference, proxy, natural, uniform, doremi" in stderr


def test_evaluating_what_is_not_trained_yet(tmp_path, capsys, recipe):
    out = tmp_path / "out"
    assert run(capsys, "prepare", recipe, "--out", out)[0] == 0
    code, stderr = run(capsys, "evaluate", recipe, "--out", out)
    assert code == 2
    assert "doremi: reference is not trained yet; run `doremi search` with the same recipe and --out first" in stderr
    rules = overrides("methods=[natural, uniform]")
    code, stderr = run(capsys, "evaluate", recipe, "--out", out, *rules)
    assert code == 2
    assert "natural is not trained yet; run `doremi train --run natural` with the same recipe and --out first" in stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("natural", "methods.1: the label 'natural' is that of methods.0; give one of them another"),
        ("doremi", "methods.2: the label 'doremi' is that of methods.1; give one of them another"),
        ("main", "methods: the name 'main' is taken by a model; give that method another `label`"),
        ("proxy", "methods: the name 'proxy' is taken by a model; give that method another `label`"),
    ],
)
def test_a_file_must_not_take_the_name_of_another_run(tmp_path, capsys, recipe, name, message):
    DomainWeights({"prose": 1, "code": 2, "junk": 1}).to_json(tmp_path / f"{name}.json")
    code, stderr = run(
        capsys,
        "run",
        recipe,
        "--out",
        tmp_path / "out",
        *overrides(f"methods=[natural, {tmp_path}/{name}.json, doremi]"),
    )
    assert code == 2
    assert message in stderr
    assert not (tmp_path / "out" / "runs").exists()


def test_a_baseline_may_not_weigh_a_domain_that_the_experiment_leaves_out(tmp_path, capsys, recipe):
    DomainWeights({"prose": 1, "code": 2, "junk": 1}).to_json(tmp_path / "all.json")
    settings = overrides("prior={prose: 1, code: 1}", f"methods=[natural, {tmp_path}/all.json, doremi]")
    code, stderr = run(capsys, "run", recipe, "--out", tmp_path / "out", *settings)
    assert code == 2
    assert "'junk'; it has 'code', 'prose'" in stderr
    assert not (tmp_path / "out" / "runs").exists()


def test_dry_run_gives_each_run_the_epochs_of_its_own_weights(tmp_path, capsys, recipe):
    """Once the corpus is prepared: epochs = weight · tokens drawn / tokens of the domain; main's are not known yet."""
    out = tmp_path / "out"
    assert main(["prepare", str(recipe), "--out", str(out)]) == 0
    tokens = {d["name"]: sum(s["tokens"] for s in d["train"]) for d in domains_of(out)}
    capsys.readouterr()
    assert main(["run", str(recipe), "--out", str(out), "--dry-run"]) == 0
    table = capsys.readouterr().out.split("Epochs of each domain")[1]
    assert table.split("\n")[1].split() == ["domain", "tokens", "reference", "proxy", "uniform", "doremi"]
    natural, uniform = 5760 / sum(tokens.values()), 5760 / 3 / tokens["code"]
    row = next(line.split() for line in table.split("\n") if line.startswith("  code "))
    assert row == ["code", f"{tokens['code']:,}", f"{natural:.2f}", f"{uniform:.2f}", f"{uniform:.2f}", "?"]
    assert "? is known once the search has given the weights" in table


def test_dry_run_counts_the_vocabulary_of_a_loaded_tokenizer(tmp_path, capsys, recipe):
    assert main(["prepare", str(recipe), "--out", str(tmp_path / "first")]) == 0
    tokenizer = tmp_path / "first" / "corpus" / "tokenizer"
    parameters = []
    for setting in ("vocab_size: 300", f"path: {tokenizer}"):
        capsys.readouterr()
        plan = ["run", str(recipe), "--out", str(tmp_path / "out"), "--dry-run"]
        assert main([*plan, "--set", f"corpus.tokenizer={{{setting}}}"]) == 0
        parameters.append(re.findall(r"train \w+ .*?  1  +([\d,]+)", capsys.readouterr().out))
    assert parameters[0] == parameters[1]
    assert len(parameters[0]) == 4


def domains_of(out):
    return json.loads((out / "corpus" / "manifest.json").read_text())["domains"]
