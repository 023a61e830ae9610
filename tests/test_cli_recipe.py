"""The recipes of the package, each on a tiny stand-in for its corpus that lies where the recipe says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zstandard

from doremi.cli import recipes
from doremi.cli.main import main
from doremi.corpus import TokenStore
from doremi.corpus.tokenizing import tokenizers
from doremi.experiment import recipe
from doremi.weights import published

PILE = sorted(published.load("pile-baseline-neox").weights)
REDPAJAMA = ["arxiv", "book", "c4", "common_crawl", "github", "stackexchange", "wikipedia"]
SLIMPAJAMA = [f"RedPajama{name}" for name in
              ("ArXiv", "Book", "C4", "CommonCrawl", "Github", "StackExchange", "Wikipedia")]  # fmt: skip
CUSTOM = ["books", "code", "web"]


def lines(domains, name_key, *, number, split):
    """Documents of all domains in turn; ``name_key``: where a record names its domain."""
    for index in range(number):
        for domain in domains:
            text = f"{split} {index} of {domain}: " + "some words that are read again and again " * 8
            yield json.dumps({"text": text, "meta": {name_key: domain}})


def write(path, texts):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "\n".join(texts).encode()
    path.write_bytes(zstandard.compress(content) if path.suffix == ".zst" else content)


def write_pile():
    write("data/pile/train/00.jsonl.zst", lines(PILE, "pile_set_name", number=12, split="train"))
    write("data/pile/train/01.jsonl.zst", lines(PILE, "pile_set_name", number=12, split="more"))
    write("data/pile/val.jsonl.zst", lines(PILE, "pile_set_name", number=2, split="held out"))


def write_redpajama():
    for domain in REDPAJAMA:
        folder = {"common_crawl": "common_crawl/2019-30", "c4": "c4/en.noblocklist"}.get(domain, domain)
        suffix = "jsonl.zst" if domain == "common_crawl" else "jsonl"
        texts = [json.dumps({"text": f"{domain} {index}", "meta": {}}) for index in range(2500)]
        write(f"data/redpajama/{folder}/part.{suffix}", [*texts, "{not JSON"])


def write_slimpajama():
    folder = Path("data/SlimPajama-627B")
    for split, number in (("train", 40), ("validation", 2)):
        texts = lines(SLIMPAJAMA, "redpajama_set_name", number=number, split=split)
        write(folder / split / "chunk1" / "example_0.jsonl.zst", texts)


def write_custom():
    for domain in CUSTOM:
        write(f"data/{domain}/part.jsonl", lines([domain], "x", number=900, split=domain))


STAND_INS = {
    "pile_120m": (write_pile, PILE, ["reference", "proxy", "doremi"]),
    "pile_280m_paper": (
        write_pile,
        PILE,
        ["reference", "proxy", "pile-baseline-256k", "uniform", "paper-280m", "doremi"],
    ),
    "redpajama": (write_redpajama, REDPAJAMA, ["reference", "proxy", "uniform", "doremi"]),
    "slimpajama": (write_slimpajama, SLIMPAJAMA, ["reference", "proxy", "natural", "uniform", "doremi"]),
    "custom": (write_custom, CUSTOM, ["reference", "proxy", "natural", "uniform", "doremi"]),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory with a tokenizer in it."""
    monkeypatch.chdir(tmp_path)
    tokenizers.train(["some words that are read again and again: 0 1 2 of train"] * 9, vocab_size=300).save(Path("tok"))
    return tmp_path


@pytest.mark.parametrize("name", STAND_INS)
def test_dry_run(folder, capsys, name):
    write_stand_in, domains, runs = STAND_INS[name]
    write_stand_in()
    assert main(["recipe", name]) == 0
    Path("copy.yaml").write_text(capsys.readouterr().out)
    tokenizer = ["--set", "corpus.tokenizer.path=tok"]
    assert main(["run", "copy.yaml", "--dry-run", *tokenizer, "--set", "training.global_batch_size=16"]) == 0
    printed = capsys.readouterr().out
    assert ("a batch of 16 rows for 22 domains" in printed) == (domains == PILE)  # their weights name them
    assert "epochs are known once `doremi prepare` has run" in printed
    assert not Path("runs").exists()

    assert main(["prepare", "copy.yaml", *tokenizer]) == 0
    assert sorted(TokenStore.open("runs/copy/corpus").names) == domains
    capsys.readouterr()
    assert main(["run", "copy.yaml", "--dry-run", *tokenizer]) == 0
    plan = capsys.readouterr().out.split("Epochs of each domain")[1]
    header, *rows = plan.split("\n\n")[0].strip().split("\n")
    assert header.split()[2:] == runs
    assert [row.strip().split("  ")[0] for row in rows if "?" not in row.split()[0]] == sorted(
        domains, key=domains.index
    )


def test_every_recipe_is_tried():
    assert set(recipes.names()) == {*STAND_INS, "demo"}


def test_listing(capsys):
    assert main(["recipe"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == recipes.names()
    assert all(len(line) <= 130 for line in listed)
    assert main(["recipe", "pile_121m"]) == 2
    assert "no recipe 'pile_121m'; there are custom, demo, pile_120m" in capsys.readouterr().err
    assert main(["recipe", "demo.yaml"]) == 0
    assert capsys.readouterr().out == recipes.text("demo")


def test_upstreams_settings(tmp_path):
    loaded = recipe.load(recipes.FOLDER / "pile_120m.yaml")
    for run in ("reference", "proxy", "main"):
        training = loaded.training.for_run(run)
        assert training.num_tokens == 200_000 * 8 * 64 * 1024
        assert (training.learning_rate, training.learning_rate_end, training.warmup_fraction) == (1e-3, 1e-4, 0.06)
        assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.99, 1e-8)
        assert (training.weight_decay, training.max_grad_norm) == (0.01, 1.0)
    (doremi,) = loaded.doremi_methods()
    assert (doremi.step_size, doremi.smoothing, loaded.seed) == (1.0, 1e-3, 1111)
    assert loaded.prior == "pile-baseline-neox-padded"


def test_what_custom_comments_out_is_valid(tmp_path):
    """Each commented-out line, taken in, still gives a recipe."""
    text = recipes.text("custom")
    tried = 0
    for line in text.split("\n"):
        bare = line.strip().removeprefix("# ")
        if not line.strip().startswith("# ") or ":" not in bare or bare[0].isupper() or bare.startswith("..."):
            continue
        path = tmp_path / "tried.yaml"
        replaced = [other for other in text.split("\n") if not _is_same_key(other, bare, indent=_indent(line))]
        path.write_text("\n".join(replaced).replace(line, line.replace("# ", "", 1)))
        if "cluster" not in line and "partition" not in line:
            recipe.load(path)
            tried += 1
    assert tried >= 9
    cluster = text.split("# cluster:")[1].replace("\n#", "\n")
    path.write_text(f"{text}\ncluster:{cluster.replace(' # for `doremi run my.yaml --slurm NODES`', '')}")
    assert recipe.load(path).cluster.set_up == ["module load cuda"]


def _indent(line):
    return len(line) - len(line.lstrip())


def _is_same_key(line, bare, *, indent):
    key = bare.split(":")[0]
    is_set = line.startswith(f"{' ' * indent}{key}:")
    return is_set or (key == "vocab_size" and line.strip().startswith("path: Eleuther"))
