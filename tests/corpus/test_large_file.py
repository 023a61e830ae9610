"""One file of 2 GB, within the memory that the preparation states."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from doremi.corpus import TokenStore
from doremi.corpus.config import CorpusConfig
from doremi.corpus.tokenizing import tokenizers

TEXT_BYTES = 2_000_000_000
MAX_MEMORY_MB = 500
DOMAINS = ("web", "code", "books")
PREPARE = """
import pathlib, resource, sys
from doremi.corpus import prepare
from doremi.corpus.config import CorpusConfig
prepare(CorpusConfig.model_validate_json(sys.argv[1]), sys.argv[2])
own = int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024)
"""


def paragraphs() -> list[str]:
    """A hundred paragraphs of made-up words, 4 to 40 kB each: cheap to join into any amount of text."""
    source = random.Random(0)
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randrange(2, 11))) for _ in range(5000)]
    return [" ".join(source.choices(words, k=source.randrange(600, 6000))) for _ in range(100)]


def documents() -> Iterator[tuple[str, str]]:
    """Documents of a few paragraphs, no two alike, until they are 2 GB."""
    parts, source, total, number = paragraphs(), random.Random(1), 0, 0
    while total < TEXT_BYTES:
        text = f"{number} " + "\n\n".join(source.choices(parts, k=source.randrange(1, 20)))
        yield DOMAINS[number % len(DOMAINS)], text
        total += len(text)
        number += 1


def write(path: Path) -> int:
    """The documents as JSON lines, compressed as they are made; returns their number."""
    num_documents = 0
    with path.open("wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file) as stream:
        for domain, text in documents():
            stream.write(json.dumps({"text": text, "set": domain}).encode() + b"\n")
            num_documents += 1
    return num_documents


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_two_gigabytes_in_half_a_gigabyte_of_memory(tmp_path):
    pytest.importorskip("fastokens")  # the other backend would take half an hour
    num_documents = write(tmp_path / "large.jsonl.zst")
    tokenizers.train(paragraphs()[:20], vocab_size=4096).save(tmp_path / "tokenizer")
    config = CorpusConfig(
        inputs=[{"path": str(tmp_path / "large.jsonl.zst"), "domain_field": "set"}],
        held_out_fraction=0.01,
        tokenizer={"path": str(tmp_path / "tokenizer"), "backend": "fastokens"},
    )
    command = [sys.executable, "-c", PREPARE, config.model_dump_json(), str(tmp_path / "store")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert float(re.findall(r"[\d.]+", done.stdout)[-1]) < MAX_MEMORY_MB
    store = TokenStore.open(tmp_path / "store")
    sides = [(name, split) for name in store.names for split in ("train", "held_out")]
    assert store.names == tuple(sorted(DOMAINS))
    assert sum(store.num_bytes(name, split=split) for name, split in sides) >= TEXT_BYTES
    assert sum(store.num_documents(name, split=split) for name, split in sides) == num_documents
