"""A corpus of three domains and a recipe that trains on it in seconds."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
import yaml

WORDS = {
    "prose": "the a of and river stone walked slowly evening light house garden was she he had".split(),  # noqa: SIM905
    "code": "def return if else for in range self None True ( ) : = + - x y i print".split(),  # noqa: SIM905
    "junk": "q0 Zx 9k /+ aB 7f == Qm 3z".split(),  # noqa: SIM905
}


def write_corpus(folder):
    rng = random.Random(0)
    path = folder / "corpus.jsonl"
    with path.open("w") as file:
        for index in range(600):
            domain = ("prose", "prose", "code", "junk")[index % 4]
            text = " ".join(rng.choices(WORDS[domain], k=rng.randint(60, 120)))
            file.write(json.dumps({"text": text, "meta": {"domain": domain}}) + "\n")
    return path


def write_recipe(folder, **training):
    """A recipe for the corpus of the same folder; ``training`` changes values of its training section."""
    content = {
        "corpus": {
            "inputs": [{"path": str(folder / "corpus.jsonl"), "domain_field": "meta.domain"}],
            "held_out_fraction": 0.1,
            "tokenizer": {"vocab_size": 300},
        },
        "models": {name: {"preset": "tiny", "overrides": {"hidden_size": 16, "intermediate_size": 24}}
                   for name in ("reference", "proxy", "main")},
        "training": {
            "steps": 30, "sequence_length": 32, "global_batch_size": 6, "eval_steps": 10, "save_steps": 5,
            "logging_steps": 5, "num_threads": 1,
        } | training,
        "evaluation": {"max_tokens_per_domain": 500},
    }  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path)


@pytest.fixture
def recipe(tmp_path, corpus):
    return write_recipe(tmp_path)


def doremi(*arguments):
    """Run the command line to its end; (exit code, stdout, stderr)."""
    command = [sys.executable, "-m", "doremi", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout, done.stderr
