"""``doremi corpus`` and the flags of ``prepare``: exit codes, and what is printed where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doremi.cli import build_parser, main
from doremi.corpus import TokenStore, from_datasets, tokenizers


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


def test_show_json(run_directory, capsys):
    assert main(["corpus", "show", str(run_directory), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["sequence_length"] == 1024
    assert content["digest"] == TokenStore.open(run_directory / "corpus").digest


def test_no_corpus(tmp_path, capsys):
    for verb in ("show", "verify"):
        assert main(["corpus", verb, str(tmp_path)]) == 2
        assert "no token store here (manifest.json is missing)" in capsys.readouterr().err


def test_verify(run_directory, capsys):
    path = run_directory / "corpus" / "train" / "domain=b" / "00001.bin"
    content = path.read_bytes()
    try:
        assert main(["corpus", "verify", str(run_directory)]) == 0
        assert capsys.readouterr().out == f"{run_directory}/corpus: every file is as it was written\n"
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
