"""What docs/coming-from-upstream.md says is enough: upstream's folder and configuration, two paths, no conversion."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import datasets
import pytest
import yaml

from doremi import DomainWeights, files
from doremi.cli import main
from doremi.corpus import TokenStore
from doremi.corpus.tokenizing import tokenizers
from tests import trained

PAGE = (Path(__file__).parents[1] / "docs" / "coming-from-upstream.md").read_text(encoding="utf-8")
TOKENIZER = "togethercomputer/RedPajama-INCITE-Base-7B-v0.1"
TEXTS = {
    "ArXiv": "We prove that the sum of two terms is bounded by the square root of n. ",
    "Gutenberg (PG-19)": "It was a bright cold day, and the clocks were striking thirteen. ",
    "Wikipedia (en)": "The river rises in the north of the county and flows to the sea. ",
    "Github": "def add(a, b):\n    return a + b  # the sum\n\n",
}
CONFIG = {"Wikipedia (en)": 4.0, "ArXiv": 1.0, "Gutenberg (PG-19)": 3.0}  # neither sorted nor normalised; no Github
ROW = 32
SMALL = (
    "models.reference=tiny", "models.proxy=tiny", "models.main=tiny", "training.steps=4",
    "training.global_batch_size=6", f"training.sequence_length={ROW}", "training.num_threads=1",
)  # fmt: skip


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for upstream's tokenizer where the hub's client keeps what it has downloaded."""
    from huggingface_hub import constants

    folder = tmp_path / "hub" / f"models--{TOKENIZER.replace('/', '--')}"
    tokenizer = tokenizers.train(list(TEXTS.values()) * 20, vocab_size=300)
    tokenizer.save(folder / "snapshots" / "1")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tokenizer


def save_rows(folder, domain, *, tokenizer, num_rows, start=0):
    """As preprocess_pile.py leaves them: documents with EOS in rows of one length, and a number for the domain."""
    texts = [f"{index} {TEXTS[domain]}" for index in range(start, start + 20 * num_rows)]
    stream = [
        token for ids in tokenizer.encode(texts).split() for token in [*ids.tolist(), tokenizer.entry.eos_token_id]
    ]
    rows = [stream[at : at + ROW] for at in range(0, num_rows * ROW, ROW)]
    features = datasets.Features(
        {"input_ids": datasets.Sequence(datasets.Value("int32")), "domain_id": datasets.Value("int32")}
    )
    number = sorted(TEXTS).index(domain)
    rows_and_number = {"input_ids": rows, "domain_id": [number] * num_rows}
    datasets.Dataset.from_dict(rows_and_number, features=features).save_to_disk(folder)


def write_recipe(folder, text, replaced):
    for path, own in replaced.items():
        assert path in text
        text = text.replace(path, str(own))
    (folder / "upstream.yaml").write_text(text, encoding="utf-8")


def run_the_page(folder, monkeypatch):
    """The commands of the page, at a size for a test: one process, a tiny model."""
    monkeypatch.chdir(folder)
    commands = [shlex.split(line, comments=True) for line in blocks("sh")[0].splitlines()]
    assert [command[:3] for command in commands] == [["doremi", "run", "upstream.yaml"]] * 2
    for _, *arguments in commands:
        if "--nproc" in arguments:
            at = arguments.index("--nproc")
            del arguments[at : at + 2]
        settings = [word for setting in SMALL for word in ("--set", setting)]
        monkeypatch.setattr(sys, "argv", ["doremi", *arguments, *settings])
        assert main.main() == 0


def test_two_paths_and_no_conversion(tmp_path, hub, monkeypatch, capsys):
    preprocessed = tmp_path / "pile_preprocessed"
    for domain in TEXTS:
        for shard in ("00", "01"):
            where = preprocessed / "train" / domain / shard
            save_rows(where, domain, tokenizer=hub, num_rows=12, start=1000 * int(shard))
        save_rows(preprocessed / "validation" / domain, domain, tokenizer=hub, num_rows=4, start=9000)
    config = tmp_path / "pile_baseline.json"
    config.write_text(json.dumps({"train_domain_weights": CONFIG, "eval_domain_weights": CONFIG}))
    before = {path: path.stat().st_mtime_ns for path in preprocessed.rglob("*")}

    write_recipe(tmp_path, blocks("yaml")[0], {"/path/to/preprocessed": preprocessed, "/path/to/config.json": config})
    run_the_page(tmp_path, monkeypatch)

    out = tmp_path / "runs" / "upstream"
    answer = json.loads((out / "weights.json").read_text())
    assert answer["train_domain_weights"] == answer["eval_domain_weights"]
    assert set(answer["train_domain_weights"]) == set(CONFIG)
    assert sum(answer["train_domain_weights"].values()) == pytest.approx(1, abs=1e-12)
    results = json.loads((out / "results.json").read_text())
    assert {name: found["prior"] for name, found in results["domains"].items()} == {
        name: pytest.approx(weight / 8) for name, weight in CONFIG.items()
    }
    # three models: the reference is the control's
    folders = [trained.folder(out, label) for label in ("reference", "doremi")]
    assert [arm["folders"] for arm in results["arms"].values()] == [[f"runs/{folder.name}"] for folder in folders]
    assert trained.names(out) == {"reference", "proxy", "doremi"}
    assert (folders[1] / "config.json").exists()

    assert {path: path.stat().st_mtime_ns for path in preprocessed.rglob("*")} == before
    assert not list((out / "corpus").rglob("*.bin"))
    store = TokenStore.open(out / "corpus")
    assert store.names == tuple(sorted(TEXTS))
    rows = datasets.load_from_disk(preprocessed / "train" / "Gutenberg (PG-19)" / "00")["input_ids"]
    assert store.rows("Gutenberg (PG-19)", range(12), ROW).tokens.tolist() == list(rows)
    drawn = files.read_marker(trained.folder(out, "reference"))["epochs"]
    assert {name: epochs * 24 for name, epochs in drawn.items()} == {  # 24 rows of 8 domain weights in 4 steps
        name: pytest.approx(3 * weight) for name, weight in CONFIG.items()
    }
    assert DomainWeights.from_json(out / "weights.json") == answer["train_domain_weights"]


def natural(counting, folder, capsys, out):
    """What the page has in place of ``scripts/write_config.py``."""
    capsys.readouterr()
    row = next(line for line in PAGE.splitlines() if line.startswith("| `scripts/write_config.py`"))
    words = shlex.split(row.split("|")[2].strip().strip("`"))
    assert words[:6] == ["doremi", "weights", "baseline", "natural(packed)", "--corpus", "DIR"]
    changes = {"natural(packed)": f"natural({counting})", "DIR": str(folder), "FILE": str(out)}
    assert main.main([*(changes.get(word, word) for word in words[1:]), "--sequence-length", str(ROW)]) == 0
    return DomainWeights.from_json(out)


def test_natural_weights_in_both_countings_of_upstream(tmp_path, hub, monkeypatch, capsys):
    """Of the preprocessed folder as it is, of a run directory that reads it, and as the weights of a recipe."""
    preprocessed, shards = tmp_path / "pile_preprocessed", {"ArXiv": 3, "Github": 1, "Wikipedia (en)": 2}
    for domain, number in shards.items():
        for shard in range(number):
            save_rows(preprocessed / "train" / domain / f"{shard:02}", domain, tokenizer=hub, num_rows=10, start=shard)
        save_rows(preprocessed / "validation" / domain, domain, tokenizer=hub, num_rows=2, start=9000)
    epochs = {"ArXiv": 2.0, "Github": 1.0, "Wikipedia (en)": 3.0}  # of the Pile
    expected = {name: shards[name] * epochs[name] / 13 for name in shards}  # rows of one length fill a chunk each
    weights = {"prior": "natural(packed)", "epochs": epochs, "methods": ["natural(packed)", "doremi"]}
    recipe = yaml.safe_load(blocks("yaml")[0]) | weights
    paths = {"/path/to/preprocessed": preprocessed}
    write_recipe(tmp_path, yaml.safe_dump(recipe), paths)
    monkeypatch.chdir(tmp_path)
    settings = [word for setting in SMALL for word in ("--set", setting)]
    assert main.main(["plan", "upstream.yaml", *settings, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["stages"][0]["epochs"]
    rows = {name: 10 * number for name, number in shards.items()}
    assert planned == {name: pytest.approx(24 * expected[name] / rows[name]) for name in rows}
    assert not (tmp_path / "runs").exists()
    assert main.main(["prepare", "upstream.yaml", *settings]) == 0
    for folder in (preprocessed, tmp_path / "runs" / "upstream"):
        for counting in ("packed", "padded"):
            assert natural(counting, folder, capsys, tmp_path / "w.json") == pytest.approx(expected)
    capsys.readouterr()
    assert main.main(["corpus", "show", str(preprocessed), "--json", "--sequence-length", str(ROW)]) == 0
    shown = json.loads(capsys.readouterr().out)["domains"]
    assert {domain["name"]: domain["sequences"] for domain in shown} == rows


def test_a_folder_without_splits(tmp_path, hub, monkeypatch, capsys):
    preprocessed = tmp_path / "own"
    for domain in TEXTS:
        save_rows(preprocessed / domain, domain, tokenizer=hub, num_rows=60)
    config = tmp_path / "own.json"
    config.write_text(json.dumps({"train_domain_weights": CONFIG, "eval_domain_weights": CONFIG}))
    recipe = yaml.safe_load(blocks("yaml")[0])
    recipe["corpus"] = yaml.safe_load(blocks("yaml")[2])["corpus"]
    paths = {"/path/to/preprocessed": preprocessed, "/path/to/config.json": config}
    write_recipe(tmp_path, yaml.safe_dump(recipe), paths)

    run_the_page(tmp_path, monkeypatch)

    store = TokenStore.open(tmp_path / "runs" / "upstream" / "corpus")
    for domain in TEXTS:
        tokens = {split: store.num_tokens(domain, split=split) for split in ("train", "held_out")}
        assert sum(tokens.values()) <= 60 * ROW  # rows that are the same are kept once
        assert 0 < tokens["held_out"] < 0.2 * tokens["train"]
