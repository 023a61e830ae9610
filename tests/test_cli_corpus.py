"""``doremi corpus`` and the flags of ``prepare``: exit codes, and what is printed where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doremi.cli.main import build_parser, main
from doremi.corpus import TokenStore, from_datasets
from doremi.corpus.tokenizing import tokenizers


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory) -> Path:
    import datasets

    root = tmp_path_factory.mktemp("run")
    tokenizer = tokenizers.train(["the cat sat on the mat"] * 4, vocab_size=280)
    tokenizer.save(root / "tokenizer")
    texts = {name: [f"{name} {i} the cat" for i in range(60)] for name in ("a", "b")}
    domains = {name: datasets.Dataset.from_dict({"text": text}) for name, text in texts.items()}
    from_datasets(domains, str(root / "tokenizer"), root / "corpus", held_out_fraction=0.2)
    return root


def test_show_takes_a_run_directory_or_its_corpus(run_directory, capsys):
    assert main(["corpus", "show", str(run_directory), "--sequence-length", "8"]) == 0
    table = capsys.readouterr().out
    assert main(["corpus", "show", str(run_directory / "corpus"), "--sequence-length", "8"]) == 0
    assert capsys.readouterr().out == table
    assert table.splitlines()[1].startswith("a  ")
    assert "sequences of 8, pack" in table


def test_weights_by_rule_take_either_too(run_directory, capsys):
    printed = []
    for folder in (run_directory, run_directory / "corpus"):
        assert main(["weights", "baseline", "natural", "--corpus", str(folder)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "a " in printed[0]


def test_show_json(run_directory, capsys):
    assert main(["corpus", "show", str(run_directory), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["sequence_length"] == 1024
    assert content["digest"] == TokenStore.open(run_directory / "corpus").digest


def test_no_corpus(tmp_path, capsys):
    for verb in ("show", "verify"):
        assert main(["corpus", verb, str(tmp_path)]) == 2
        assert "no token store here (manifest.json is missing)" in capsys.readouterr().err


def test_saved_datasets_have_nothing_to_verify(run_directory, tmp_path, capsys):
    """As upstream's folders: they are shown and counted, and a run directory that reads them can be verified."""
    assert (
        main(["corpus", "export", str(run_directory), "--out", str(tmp_path / "saved"), "--sequence-length", "8"]) == 0
    )
    assert main(["corpus", "show", str(tmp_path / "saved"), "--sequence-length", "8"]) == 0
    assert main(["corpus", "verify", str(tmp_path / "saved")]) == 2
    assert "saved: saved datasets, which keep no digests. Name a run directory" in capsys.readouterr().err


def test_epochs_of_the_pile_for_a_corpus_without_any_of_its_domains(run_directory, capsys):
    assert main(["weights", "baseline", "natural", "--epochs", "pile-epochs", "--corpus", str(run_directory)]) == 2
    assert "none of the corpus' domains is one of the Pile's; it has 'a', 'b'" in capsys.readouterr().err


def test_verify(run_directory, capsys):
    path = run_directory / "corpus" / "train" / "domain=b" / "00001.bin"
    content = path.read_bytes()
    try:
        assert main(["corpus", "verify", str(run_directory)]) == 0
        assert capsys.readouterr().out.startswith(f"{run_directory}/corpus: every file is as it was written: the man")
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert main(["corpus", "verify", str(run_directory)]) == 1
        fault, advice = capsys.readouterr().out.splitlines()
        assert fault == f"{path}: its content changed: the digest is not the manifest's"
        assert advice.startswith(f"{run_directory}/corpus: 1 faulty; restore what is named from a copy")
    finally:
        path.write_bytes(content)


def test_export(run_directory, tmp_path, capsys):
    import datasets

    out = tmp_path / "hf"
    assert (
        main(["corpus", "export", str(run_directory), "--format", "hf", "--out", str(out), "--rows", "documents"]) == 0
    )
    assert capsys.readouterr().out.startswith(f"{out}: train and validation of 2 domains")
    store = TokenStore.open(run_directory / "corpus")
    assert len(datasets.load_from_disk(out / "train" / "a")) == store.num_documents("a")
    assert main(["corpus", "export", str(run_directory), "--out", str(out)]) == 2


@pytest.mark.parametrize("length", ["0", "-3", "x"])
def test_sequence_length_is_positive(run_directory, length, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["corpus", "show", str(run_directory), f"--sequence-length={length}"])
    assert "--sequence-length" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["prepare", "run"])
def test_tokenizer_backend_is_a_setting_of_the_recipe(verb, capsys):
    options = build_parser().parse_args([verb, "r.yaml", "--set", "seed=1", "--tokenizer-backend", "tokenizers"])
    assert options.overrides == ["seed=1", "corpus.tokenizer.backend=tokenizers"]
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args([verb, "r.yaml", "--tokenizer-backend", "slow"])
    assert "'slow'; choose one of auto, tokenizers, fastokens" in capsys.readouterr().err


def test_every_verb_explains_itself(capsys):
    for verb in ("show", "verify", "export"):
        with pytest.raises(SystemExit, match="0"):
            build_parser().parse_args(["corpus", verb, "--help"])
        assert len(capsys.readouterr().out) > 400


class TestExecutors:
    """``doremi prepare --executor``."""

    @pytest.fixture
    def recipe(self, tmp_path):
        for number in range(3):
            records = [{"text": f"{number} {i} the cat", "set": "ab"[i % 2]} for i in range(60)]
            (tmp_path / f"{number}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        path = tmp_path / "r.yaml"
        inputs = [{"path": str(tmp_path / "*.jsonl"), "domain_field": "set"}]
        corpus = {"inputs": inputs, "tokenizer": {"vocab_size": 300}, "held_out_fraction": 0.3}
        path.write_text(json.dumps({"corpus": corpus, "training": {"sequence_length": 8, "global_batch_size": 4}}))
        return path

    def test_local_tasks(self, recipe, tmp_path, capsys):
        pytest.importorskip("datatrove")
        command = ["prepare", str(recipe), "--executor", "local", "--tasks", "2", "--out", str(tmp_path / "out")]
        assert main(command) == 0
        table = capsys.readouterr().out
        assert table.startswith("domain")
        assert main(["prepare", str(recipe), "--out", str(tmp_path / "here")]) == 0
        assert capsys.readouterr().out == table  # the digest is part of it

    @pytest.mark.parametrize("executor", ["local", "ray", "slurm"])
    def test_what_the_recipe_alone_shows_is_refused_before_a_task_starts(self, recipe, tmp_path, capsys, executor):
        pytest.importorskip("datatrove")
        flags = ["--executor", executor, "--tasks", "2", "--partition", "cpu", "--set", "models.main=nope"]
        assert main(["prepare", str(recipe), *flags, "--out", str(tmp_path / "out")]) == 2
        assert "models: no preset 'nope'" in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "out").rglob("*") if path.suffix != ".lock"] == []

    def test_a_domain_of_the_recipe_that_is_misspelled(self, recipe, tmp_path, capsys):
        """Found once the tokenizer's sample was read, and before a task starts."""
        pytest.importorskip("datatrove")
        flags = ["--executor", "local", "--tasks", "2", "--set", "prior={a: 1, bb: 2}"]
        assert main(["prepare", str(recipe), *flags, "--out", str(tmp_path / "out")]) == 2
        assert "prior: no such domain in the corpus: 'bb'; it has 'a', 'b'" in capsys.readouterr().err
        assert not list((tmp_path / "out").rglob("*.bin"))

    def test_a_bad_record(self, recipe, tmp_path, capfd):
        pytest.importorskip("datatrove")
        tokenizers.train(["the cat"], vocab_size=280).save(tmp_path / "tokenizer")
        with (tmp_path / "1.jsonl").open("a") as file:
            file.write("{bad\n")
        settings = ["--set", f"corpus.tokenizer.path={tmp_path / 'tokenizer'}", "--out", str(tmp_path / "out")]
        assert main(["prepare", str(recipe), "--executor", "local", "--tasks", "3", *settings]) == 2
        said = capfd.readouterr().err
        assert f"doremi: {tmp_path}/1.jsonl:61: not valid JSON" in said
        assert "Traceback" not in said

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--tasks", "2"], "--tasks: what runs them"),
            (["--executor", "ray"], "--executor ray: how many tasks"),
            (["--executor", "slurm", "--tasks", "2"], "--executor slurm: give --partition NAME"),
        ],
    )
    def test_what_is_missing(self, recipe, tmp_path, flags, message, capsys):
        assert main(["prepare", str(recipe), *flags, "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_options_of_sbatch(self, capsys):
        flags = ["--sbatch", "account=mine", "--sbatch=--constraint=a=b"]
        options = build_parser().parse_args(["prepare", "r.yaml", *flags])
        assert options.sbatch == [("account", "mine"), ("constraint", "a=b")]
        with pytest.raises(SystemExit, match="2"):
            build_parser().parse_args(["prepare", "r.yaml", "--sbatch", "account"])
        assert "'account'; expected OPTION=VALUE" in capsys.readouterr().err
