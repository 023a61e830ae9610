"""Small token stores for the tests of the corpus, written by the real writer."""

from __future__ import annotations

import gzip
import json
import os
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import zstandard

from doremi import files
from doremi.corpus import TokenStore
from doremi.corpus.config import CorpusConfig
from doremi.corpus.preparing import work
from doremi.corpus.preparing.shards import ShardWriter
from doremi.corpus.storing import manifest
from doremi.corpus.tokenizing import tokenizers
from doremi.corpus.tokenizing.tokenizers import TokenizerEntry

EOS = 0
Shards = Sequence[Sequence[Sequence[int]]]  # documents of token ids without EOS, by shard


@pytest.fixture
def build_store(tmp_path: Path) -> Callable[..., TokenStore]:
    """Writes a store from token ids: {domain: shards}, train and held-out; ``bytes`` of a document is 10 per token."""

    def build(
        train: dict[str, Shards], held_out: dict[str, Shards] | None = None, *, dtype: str = "uint16"
    ) -> TokenStore:
        folder = tmp_path / "store"
        domains: dict = {}
        for split, shards_of in (("train", train), ("held_out", held_out or {})):
            for name, shards in shards_of.items():
                for ordinal, documents in enumerate(shards):
                    with ShardWriter(folder, ordinal=ordinal, dtype=dtype) as writer:
                        for ids in documents:
                            writer.append(name, split, np.array([*ids, EOS]), num_bytes=10 * len(ids))
                        for written in writer.finish():
                            domains.setdefault(name, {}).setdefault(split, []).append(written.entry)
        tokenizer = TokenizerEntry(digest="0" * 32, eos_token="<eos>", eos_token_id=EOS, vocab_size=1000)
        content = manifest.build(tokenizer=tokenizer, dtype=dtype, domains=domains, inputs=[], settings={})
        files.write_json(folder / manifest.NAME, content)
        return TokenStore.open(folder)

    return build


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small byte-level BPE whose EOS is ``<|endoftext|>`` with id 0."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizers.train(["the cat sat on the mat and the dog sat on the log"] * 4, vocab_size=300).save(folder)
    return folder


@pytest.fixture
def file_by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every input file a unit of its own, however small. Tasks in other processes follow the plan."""
    monkeypatch.setattr(work, "UNIT_BYTES", 0)


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Writes records as JSON lines below the test's folder; compressed as the name says."""

    def write(name: str, records: Sequence[object]) -> Path:
        data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".gz"):
            data = gzip.compress(data)
        elif name.endswith(".zst"):
            data = zstandard.compress(data)
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def add_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[CorpusConfig], CorpusConfig]:
    """Adds a reader that runs the Python of ``script.py``, if it exists, before its second document."""
    source = f"""
        import os, pathlib, signal, time
        def documents():
            yield "a", "first"
            script = pathlib.Path({str(tmp_path / "script.py")!r})
            if script.exists():
                exec(script.read_text())
            yield "a", "second"
    """
    (tmp_path / "faulty_reader.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def add(config: CorpusConfig) -> CorpusConfig:
        content = config.model_dump()
        return CorpusConfig.model_validate(
            {**content, "inputs": [*content["inputs"], {"reader": "faulty_reader:documents"}]}
        )

    return add


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a store but the lock, by path."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".doremi.lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
