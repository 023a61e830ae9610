"""What a newcomer types, taken as it is meant: files, names, folders, forgotten models, misspelled domains."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from doremi import DomainWeights, files
from doremi.cli import main
from doremi.corpus.tokenizing import tokenizers
from doremi.experiment import recipe
from tests.end_to_end.conftest import write_corpus, write_recipe
from tests.end_to_end.proxy_run import in_process


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A recipe, and a run directory with a corpus and weights."""
    folder = tmp_path_factory.mktemp("newcomer")
    write_corpus(folder)
    path, out = write_recipe(folder, steps=2, overrides={"main": {"sequence_length": 24}}), folder / "out"
    assert in_process("prepare", path, "--out", out) == 0
    DomainWeights({"prose": 1, "code": 2, "junk": 1}).to_json(out / "weights.json", provenance={"rule": "by hand"})
    return path, out


@pytest.fixture
def run(capsys):
    """``run(*arguments)``: exit code, stdout and stderr of the command line."""

    def command(*arguments):
        capsys.readouterr()
        code = in_process(*arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def content_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


# ---- files, names and folders ----


class TestWeights:
    """A run directory stands for its weights.json."""

    def test_show_export_compare(self, prepared, run):
        _, out = prepared
        export = ["--format", "csv", "--corpus", out]
        for verb, rest in (("show", []), ("export", export), ("compare", ["paper-280m"]), ("compare", [out])):
            of_directory = run("weights", verb, out, *rest)
            if verb == "compare" and rest == ["paper-280m"]:
                assert of_directory[0] == 2  # no domain in common
                continue
            assert of_directory[0] == 0, of_directory[2]
            of_file = run("weights", verb, out / "weights.json", *rest)
            assert of_directory[1].replace(str(out / "weights.json"), str(out)) == of_file[1].replace(
                str(out / "weights.json"), str(out)
            )

    def test_in_a_recipe(self, prepared, run):
        path, out = prepared
        loaded = recipe.load(path, [f"prior={out}", "training.steps=5"])
        code, stdout, stderr = run("loader", "inspect", path, "--out", out, "--set", f"prior={out}", "--json")
        assert code == 0, stderr
        assert loaded.prior == str(out)
        assert {d["name"]: d["weight"] for d in json.loads(stdout)["domains"]} == pytest.approx(
            {"prose": 0.25, "code": 0.5, "junk": 0.25}, abs=1e-9
        )

    def test_a_folder_without_weights(self, tmp_path, run):
        code, _, stderr = run("weights", "show", tmp_path)
        assert code == 2
        assert f"{tmp_path}: a folder without weights.json; give a weights file, or a run directory whose" in stderr

    def test_nothing_to_compare(self, tmp_path, run):
        DomainWeights({"a": 1, "b": 1}).to_json(tmp_path / "ours.json")
        code, stdout, stderr = run("weights", "compare", tmp_path / "ours.json", "redpajama-baseline")
        assert (code, stdout) == (2, "")
        assert "ours.json and redpajama-baseline have no domain in common" in stderr
        assert "so there is nothing to compare: 'a', 'b' against '" in " ".join(stderr.split())
        assert len(stderr.splitlines()) == 1


class TestLengthOfTheRun:
    """What reads a run directory takes its sequence length, 24 of the main model, and not 1024."""

    def test_corpus_show(self, prepared, run):
        _, out = prepared
        assert json.loads(run("corpus", "show", out, "--json")[1])["sequence_length"] == 24
        assert json.loads(run("corpus", "show", out / "corpus", "--json")[1])["sequence_length"] == 24
        assert json.loads(run("corpus", "show", out, "--json", "--sequence-length", 7)[1])["sequence_length"] == 7

    def test_a_corpus_alone(self, prepared, run, tmp_path):
        shutil.copytree(prepared[1] / "corpus", tmp_path / "corpus")
        assert json.loads(run("corpus", "show", tmp_path / "corpus", "--json")[1])["sequence_length"] == 1024

    def test_corpus_export(self, prepared, run, tmp_path):
        import datasets

        assert run("corpus", "export", prepared[1], "--out", tmp_path / "export")[0] == 0
        assert len(datasets.load_from_disk(tmp_path / "export" / "train" / "code")[0]["input_ids"]) == 24

    def test_weights_baseline(self, prepared, run):
        _, out = prepared
        default, same, other = (
            run("weights", "baseline", "natural(packed)", "--corpus", out, *flags)[1]
            for flags in ([], ["--sequence-length", 24], ["--sequence-length", 1024])
        )
        assert default == same != other

    def test_perplexity(self, prepared, run, tmp_path):
        from tests.training.fakes import tiny_model

        _, out = prepared
        corpus_tokenizer = tokenizers.load(str(out / "corpus" / "tokenizer"))
        tiny_model(dtype=None, vocab_size=300, max_position_embeddings=512).float().save_pretrained(tmp_path / "model")
        corpus_tokenizer.save(tmp_path / "model")
        lengths = []
        for flags in ([], ["--sequence-length", 100]):
            command = ["perplexity", tmp_path / "model", "--corpus", out, "--max-tokens", 40, *flags]
            assert run(*command, "--json", tmp_path / "found.json")[0] == 0
            lengths.append(files.read_json(tmp_path / "found.json")["models"][0]["sequence_length"])
        assert lengths == [24, 100]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "{out}"], "expected a YAML file; the recipe of this run directory is {out}/recipe.yaml"),
        (["plan", "custom"], "custom: no such recipe; `doremi recipe custom > custom.yaml` writes the one that"),
        (["plan", "custom.yaml"], "custom.yaml: no such recipe; `doremi recipe custom > custom.yaml` writes"),
        (["plan", "mine.yaml"], "mine.yaml: no such recipe\n"),
        (
            ["perplexity", "{out}", "--corpus", "{out}"],
            "The models in this run directory are {out}/runs/doremi-0123456789ab, {out}/runs/reference-0123456789ab",
        ),
    ],
)
def test_what_was_probably_meant(prepared, run, monkeypatch, tmp_path, command, message):
    shutil.copytree(prepared[1] / "corpus", tmp_path / "corpus")
    shutil.copy(prepared[1] / "recipe.yaml", tmp_path)
    for model in ("runs/reference-0123456789ab", "runs/doremi-0123456789ab"):
        (tmp_path / model).mkdir(parents=True)
        (tmp_path / model / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    code, _, stderr = run(*(word.replace("{out}", str(tmp_path)) for word in command))
    assert code == 2
    assert message.replace("{out}", str(tmp_path)) in stderr


# ---- looking costs nothing and writes nothing ----


def test_inspecting_what_is_not_prepared_is_refused_at_once(tmp_path, run):
    write_corpus(tmp_path)
    path, out = write_recipe(tmp_path), tmp_path / "out"
    code, stdout, stderr = run("loader", "inspect", path, "--out", out)
    assert (code, stdout) == (2, "")
    (line,) = stderr.splitlines()
    assert line.startswith(f"doremi: {out}/corpus: not prepared yet, and what is drawn depends on how much text")
    assert line.endswith("run `doremi prepare` with the same recipe and --out first")
    assert not out.exists()


def test_looking_changes_nothing(prepared, run):
    path, out = prepared
    before = content_of(out)
    assert run("loader", "inspect", path, "--out", out, "--set", "training.max_epochs=0.5")[0] == 0
    assert run("plan", path, "--out", out)[0] == 0
    assert content_of(out) == before


@pytest.mark.parametrize("verb", ["plan", "loader inspect"])
def test_a_corpus_of_other_settings_is_not_that_of_the_recipe(prepared, run, verb):
    path, out = prepared
    code, _, stderr = run(*verb.split(), path, "--out", out, "--set", "corpus.held_out_fraction=0.2")
    assert code == 2
    assert f"{out}/corpus: holds a corpus prepared with other settings" in stderr


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ({"inputs": [{"path": "nowhere/*.jsonl", "domain": "a"}]}, "nowhere/*.jsonl: no file matches this pattern"),
        ({"inputs": [{"path": "nowhere", "domain": "a"}]}, "nowhere: no such file or folder"),
        ({"inputs": [{"path": "{folder}", "domain": "a"}], "held_out_inputs": [{"path": "gone"}]}, "gone: no such"),
        ({"store": "nowhere", "tokenizer": {"path": "{tokenizer}"}}, "nowhere: no such file or folder"),
        ({"store": "{folder}"}, "saved datasets do not say which tokenizer made their ids; set corpus.tokenizer.path"),
    ],
)
def test_a_plan_of_inputs_that_are_not_there_is_refused(tmp_path, prepared, run, corpus, message):
    write_corpus(tmp_path)
    places = {"{folder}": str(tmp_path), "{tokenizer}": str(prepared[1] / "corpus" / "tokenizer")}
    text = yaml.safe_dump({"corpus": corpus})
    for name, place in places.items():
        text = text.replace(f"'{name}'", place)
    (tmp_path / "r.yaml").write_text(text)
    code, stdout, stderr = run("plan", tmp_path / "r.yaml", "--out", tmp_path / "out")
    assert (code, stdout) == (2, "")
    assert message in stderr
    assert len(stderr.splitlines()) == 1


# ---- misspelled domains ----

MISSPELLED = [
    ("prior={Prose: 1, code: 1}", "prior: no such domain in the corpus: 'Prose'", "'prose'"),
    ("prior={w}", "no such domain in the corpus: 'cod'; it has", "'code' for 'cod'"),
    (
        "methods=[natural, {w}, doremi]",
        "methods.1 ({w}): no such domain in the corpus: 'cod'",
        "'code' for 'cod'",
    ),
    ("epochs={junks: 2}", "epochs of 'junks': no such domain", "Did you mean 'junk' for 'junks'?"),
    ("methods.doremi.min_weight={jnk: 0.1}", "doremi.min_weight: no such domain: 'jnk'", "'junk' for 'jnk'"),
    (
        "methods=[natural, {doremi: {prior: {proze: 1}, prior_pull: 0.1}}]",
        "doremi.prior: no such domain",
        "'prose' for 'proze'",
    ),
    ("prior=paper-280m", "no such domain in the corpus: 'ArXiv'", "it has 'code', 'junk', 'prose'"),
    ("prior=nothing.json", "'nothing.json' is neither a file nor one of natural", ""),
]


@pytest.mark.parametrize("place", ["folders", "field"])
@pytest.mark.parametrize(("setting", "message", "nearest"), MISSPELLED)
def test_a_misspelled_domain_is_found_before_a_tokenizer_is_trained(
    tmp_path, run, monkeypatch, place, setting, message, nearest
):
    """Where folders name the domains before a document is read, else when all were read for the tokenizer."""
    write_corpus(tmp_path)
    path = write_recipe(tmp_path)
    if place == "folders":
        content = yaml.safe_load(path.read_text())
        for name in ("prose", "code", "junk"):
            (tmp_path / "texts" / name).mkdir(parents=True)
            (tmp_path / "texts" / name / "1.txt").write_text("a text")
        content["corpus"]["inputs"] = [{"path": str(tmp_path / "texts")}]
        path.write_text(yaml.safe_dump(content))
        monkeypatch.setattr("doremi.corpus.preparing.job.read_unit", None)
    monkeypatch.setattr(tokenizers, "train", None)
    (tmp_path / "w.json").write_text('{"cod": 1, "prose": 1}')
    places = {"{w}": str(tmp_path / "w.json")}
    for name, value in places.items():
        setting, message = setting.replace(name, value), message.replace(name, value)
    code, _, stderr = run("run", path, "--out", tmp_path / "out", "--set", setting)
    assert code == 2
    last = stderr.splitlines()[-1]
    assert message in last
    assert nearest in last
    assert not list((tmp_path / "out").rglob("*.bin"))


# ---- forgotten models ----


def models_of(**given):
    found = recipe.parse({"corpus": {"inputs": [{"path": "x"}]}, "models": given}).models
    return [
        f"{model.preset or model.path} {model.init}".removesuffix(" random")
        for model in (found.reference, found.proxy, found.main)
    ]


def test_a_model_that_is_not_named_is_like_the_others():
    assert models_of() == ["tiny"] * 3
    assert models_of(proxy="70m") == ["70m"] * 3
    assert models_of(proxy="70m", main="1b") == ["70m", "70m", "1b"]
    assert models_of(reference="70m") == ["70m"] * 3
    assert models_of(reference="70m", proxy="150m") == ["70m", "150m", "150m"]
    assert models_of(reference={"path": "a/b", "init": "trained"}) == ["a/b trained", "a/b", "a/b"]
    assert models_of(proxy={"path": "a/b", "init": "pretrained"}) == ["a/b pretrained"] * 3
    assert models_of(main="1b") == ["tiny", "tiny", "1b"]


def test_a_main_model_smaller_than_the_proxy_is_doubted(prepared, run, caplog, monkeypatch):
    path, out = prepared
    smaller = "models.main={preset: tiny, overrides: {hidden_size: 8, intermediate_size: 8}}"
    doubt = "main: 2,9"
    code, stdout, _ = run("plan", path, "--out", out, "--set", smaller)
    assert code == 0
    (told,) = [line.strip(" -") for line in stdout.splitlines() if "fewer than the proxy's" in line]
    assert told.endswith("Is models.main right?")
    assert "fewer than the proxy's" not in run("plan", path, "--out", out)[1]
    monkeypatch.setattr("doremi.experiment.pipeline.search_for_weights", lambda experiment: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main.main(["run", str(path), "--out", str(out.with_name("other")), "--set", smaller])
    assert told in caplog.messages
    assert doubt[:5] == told[:5]


# ---- narrow terminals ----


@pytest.mark.parametrize("columns", [80, 100])
def test_tables_stay_within_the_terminal(prepared, run, monkeypatch, columns):
    path, out = prepared
    monkeypatch.setenv("COLUMNS", str(columns))
    commands = [
        ["corpus", "show", out],
        ["weights", "show", out],
        ["weights", "show", "paper-280m"],
        ["weights", "compare", "paper-280m", "pile-baseline-neox"],
        ["weights", "baseline", "natural", "--corpus", out],
        ["weights", "show"],
        ["loader", "inspect", path, "--out", out],
        ["plan", path, "--out", out, "--device", "h100-sxm", "--price", "2"],
        ["recipe"],
        ["run", "--help-recipe"],
    ]
    for command in commands:
        code, stdout, stderr = run(*command)
        assert code == 0, stderr
        too_wide = [line for line in stdout.splitlines() if len(line) > columns]
        assert not too_wide, command
