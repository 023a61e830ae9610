"""``doremi weights export``: where it writes, what it warns of, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doremi import DomainWeights
from doremi.cli.main import main
from doremi.corpus import TokenStore, from_datasets
from doremi.corpus.tokenizing import tokenizers
from doremi.weights import published


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory) -> Path:
    import datasets

    root = tmp_path_factory.mktemp("run")
    tokenizer = tokenizers.train(["the cat sat on the mat"] * 4, vocab_size=280)
    tokenizer.save(root / "tokenizer")
    texts = {name: [f"{word} {i} the cat" for i in range(60)] for name, word in (("a: b", "cats"), ("x", "über"))}
    domains = {name: datasets.Dataset.from_dict({"text": text}) for name, text in texts.items()}
    from_datasets(domains, str(root / "tokenizer"), root / "corpus", held_out_fraction=0.2)
    return root


@pytest.fixture
def weights(tmp_path) -> Path:
    DomainWeights({"a: b": 0.25, "x": 0.75}).to_json(tmp_path / "weights.json")
    return tmp_path / "weights.json"


def call(weights: Path | str, format_id: str, corpus: Path, *more: str) -> int:
    return main(["weights", "export", str(weights), "--format", format_id, "--corpus", str(corpus), *more])


def test_to_the_terminal_from_a_run_directory_or_its_corpus(run_directory, weights, capsys):
    assert call(weights, "upstream", run_directory) == 0
    first = capsys.readouterr()
    assert json.loads(first.out)["train_domain_weights"] == {"a: b": 0.25, "x": 0.75}
    assert first.err == ""
    assert call(weights, "upstream", run_directory / "corpus") == 0
    assert capsys.readouterr().out == first.out


def test_to_a_file_or_a_folder(run_directory, weights, tmp_path, capsys):
    assert call(weights, "nanotron", run_directory) == 0
    printed = capsys.readouterr()
    assert "with --out FOLDER also: nanotron-links.sh" in printed.err
    assert call(weights, "nanotron", run_directory, "--out", str(tmp_path / "my.yaml")) == 0
    assert (tmp_path / "my.yaml").read_text() == printed.out
    assert capsys.readouterr().out == f"{tmp_path}/my.yaml\n"
    assert call(weights, "nanotron", run_directory, "--out", str(tmp_path / "new" / "folder")) == 0
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "nanotron-links.sh",
        "nanotron.yaml",
    ]


@pytest.mark.parametrize(
    ("weights", "more", "message"),
    [
        ({"Code": 1.0}, [], "no such domain in the corpus: 'Code'; it has 'a: b', 'x'"),
        ({"x": 1.0}, ["--unit", "documents"], "unit is 'documents'; levanter counts sequences"),
        ({"x": 1.0}, ["--tokenizer", "/nowhere"], "/nowhere: no such tokenizer folder or file"),
    ],
)
def test_refused(run_directory, tmp_path, capsys, weights, more, message):
    (tmp_path / "w.json").write_text(json.dumps(weights))
    assert call(tmp_path / "w.json", "levanter", run_directory, *more) == 2
    assert message in capsys.readouterr().err


def test_unknown_format_and_tokens(run_directory, weights, capsys):
    for arguments in (("megatorn",), ("olmo-core", "--tokens", "0")):
        with pytest.raises(SystemExit, match="2"):
            call(weights, arguments[0], run_directory, *arguments[1:])
    errors = capsys.readouterr().err
    assert "invalid choice: 'megatorn'" in errors
    assert "0 is no number of tokens; give one such as 1e11" in errors


def test_tokens_of_the_run(run_directory, weights, capsys):
    store = TokenStore.open(run_directory / "corpus")
    assert call(weights, "olmo-core", run_directory, "--tokens", "1e6") == 0
    epochs = 0.75 * 1e6 / store.num_tokens("x")
    assert f"max_repetition_ratio: {round(epochs * 1.05, 4)}" in capsys.readouterr().out


def test_weights_of_another_tokenizer(run_directory, tmp_path, capsys):
    digest = TokenStore.open(run_directory / "corpus").tokenizer_digest
    path = tmp_path / "w.json"
    for found, warned in ((digest, False), ("f" * 32, True)):
        DomainWeights({"a: b": 1, "x": 1}).to_json(path, provenance={"tokenizer_digest": found})
        assert call(path, "levanter", run_directory) == 0
        printed = capsys.readouterr()
        for text in printed:
            assert (f"found under another tokenizer (digest {'f' * 32})" in text) == warned


def test_published_weights_say_what_they_were_counted_with(build_store, run_directory, capsys):
    assert call("redpajama-baseline", "csv", run_directory) == 2
    assert "redpajama-baseline: no such domain in the corpus" in capsys.readouterr().err
    known = published.load("redpajama-baseline")
    store = build_store({name: [[[1, 2]]] for name in known.weights})
    assert call("redpajama-baseline", "levanter", store.path) == 0
    for text in capsys.readouterr():
        assert f"published for another tokenizer or corpus: {known.tokenizer}" in text


def test_target_tokenizer(run_directory, weights, tmp_path, capsys):
    """One token a byte: the domain whose words the corpus' tokenizer has merged gets more of the tokens than before."""
    plain = tokenizers.train([""], vocab_size=257)
    plain.save(tmp_path / "plain")
    assert call(weights, "upstream", run_directory, "--tokenizer", str(tmp_path / "plain")) == 0
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    assert 0.28 < content["train_domain_weights"]["a: b"] < 0.35
    assert content["provenance"]["tokenizer_digest"] == plain.entry.digest
    assert "converted to another tokenizer so that the text is the same" in printed.err
    assert "hold ids of the corpus' tokenizer" not in printed.err
    assert call(weights, "megatron", run_directory, "--tokenizer", str(tmp_path / "plain")) == 0
    assert "hold ids of the corpus' tokenizer" in capsys.readouterr().err


def test_the_corpus_own_tokenizer_changes_nothing(run_directory, weights, capsys):
    assert call(weights, "hf", run_directory) == 0
    before = capsys.readouterr()
    assert call(weights, "hf", run_directory, "--tokenizer", str(run_directory / "tokenizer")) == 0
    assert capsys.readouterr() == before


def test_help_lists_the_formats(capsys):
    from doremi.exporters import FORMATS

    with pytest.raises(SystemExit, match="0"):
        main(["weights", "export", "--help"])
    table = capsys.readouterr().out.split("what the numbers count\n")[1]
    assert [line.split()[0] for line in table.splitlines()] == list(FORMATS)
    assert (
        "hf               Hugging Face datasets   interleave_datasets(probabilities=...) documents or sequences"
        in table
    )


def test_torch_is_not_imported(run_directory, weights):
    import subprocess
    import sys

    code = f"""
import sys
from doremi.cli.main import main
assert main(["weights", "export", {str(weights)!r}, "--format", "megatron", "--corpus", {str(run_directory)!r}]) == 0
sys.exit(int("torch" in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
