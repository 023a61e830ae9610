"""A small corpus whose token ids tell domain and shard, and ways to read each export back."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from doremi import DomainWeights, files
from doremi.corpus import TokenStore
from doremi.exporters import Domain, Mixture, Shard, TokenizerFacts
from doremi.exporters.from_corpus import from_store
from tests.corpus.conftest import build_store, tokenizer_folder  # noqa: F401 -- fixtures

BENCHMARK_PYTHON = Path(__file__).parents[2] / ".venv-bench" / "bin" / "python"
PROGRAMS = Path(__file__).parent / "programs"
WEIGHTS = {"Gutenberg (PG-19)": 0.45, "Wikipedia (en)": 0.3, 'a: b/"c" #1': 0.25}
DOCUMENTS = {
    "Gutenberg (PG-19)": [(40, 99), (60, 99)],
    "Wikipedia (en)": [(200, 9)],
    'a: b/"c" #1': [(10, 399), (5, 49)],
}


def first_id(name: str) -> int:
    """Shard ``n`` of a domain holds nothing but the id 10 · (its position + 1) + n, and EOS."""
    return 10 * (list(WEIGHTS).index(name) + 1)


@pytest.fixture
def store(build_store) -> TokenStore:  # noqa: F811
    """Three domains whose documents have 80, 10 and 360 tokens in the mean; 10,000, 2,000 and 6,500 tokens."""
    train = {
        name: [[[first_id(name) + shard] * length] * number for shard, (number, length) in enumerate(shards)]
        for name, shards in DOCUMENTS.items()
    }
    held_out = {name: [[[first_id(name)] * 9] * 3] for name in WEIGHTS}
    return build_store(train, held_out)


@pytest.fixture
def mixture(store) -> Mixture:
    return from_store(DomainWeights(WEIGHTS), store, source="weights.json")


def by_hand(
    weights: Mapping[str, float],
    *,
    tokens: Mapping[str, int] | int = 1000,
    documents: Mapping[str, int] | int = 10,
    text_bytes: int = 4000,
    **facts: object,
) -> Mixture:
    """A mixture without a corpus: one file a domain."""
    normal = DomainWeights(weights)

    def domain(name: str) -> Domain:
        size = tokens if isinstance(tokens, int) else tokens[name]
        number = documents if isinstance(documents, int) else documents[name]
        path = f"/corpus/train/{files.encode_name(name)}/00000"
        shards = (Shard(path, size),)
        held_out = (Shard(path.replace("train", "held_out"), 50),)
        return Domain(name, normal[name], number, size, text_bytes, shards, held_out)

    given = {
        "domains": tuple(map(domain, normal)),
        "source": "weights.json",
        "corpus": "/corpus",
        "corpus_digest": "c" * 32,
        "tokenizer": TokenizerFacts("/corpus/tokenizer", "d" * 32, 50_277),
        "token_bytes": 2,
    }
    return Mixture(**{**given, **facts})  # type: ignore[arg-type]


@pytest.fixture
def run_program(tmp_path) -> Callable[..., Any]:
    """Runs one of ``programs`` where ``module`` is installed, in the test's folder; returns the JSON it prints."""

    def run(module: str, program: str, *arguments: str) -> Any:
        process = subprocess.run(
            [_python_with(module), "-W", "ignore", str(PROGRAMS / program), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=tmp_path,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        return json.loads(process.stdout.splitlines()[-1])

    return run


def _python_with(module: str) -> str:
    """Our interpreter or that of `make bench`; the test is skipped where neither has the module."""
    if importlib.util.find_spec(module) is not None:
        return sys.executable
    for python in (path for path in (BENCHMARK_PYTHON,) if path.exists()):
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
        if subprocess.run([python, "-c", code], check=False).returncode == 0:
            return str(python)
    return pytest.skip(f"{module} is not installed: see tests/exporters/stacks.txt")
