"""Many shards and domains: nothing that a process has few of is used up."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from doremi import files
from doremi.corpus import TokenStore
from doremi.corpus.storing import indexed, manifest, sharded_tokens
from doremi.corpus.storing.manifest import ShardEntry
from doremi.corpus.tokenizing.tokenizers import TokenizerEntry

NUM_DOMAINS, SHARDS_PER_DOMAIN, TOKENS_PER_SHARD = 1_000, 10, 7


def stream_of(domain: int) -> np.ndarray:
    """Every token of a domain; no two domains have the same."""
    return (np.arange(SHARDS_PER_DOMAIN * TOKENS_PER_SHARD) + 17 * domain).astype("<u2")


@pytest.fixture
def large_store(tmp_path):
    """10,000 shards of seven tokens over 1,000 domains; written by hand, since the writer syncs every file."""
    folder = tmp_path / "large"
    domains: dict = {}
    for number in range(NUM_DOMAINS):
        name = f"domain {number:04d}"
        place = folder / "train" / files.encode_name(name)
        place.mkdir(parents=True)
        entries = []
        for shard, tokens in enumerate(np.split(stream_of(number), SHARDS_PER_DOMAIN)):
            (place / f"{shard:05d}.bin").write_bytes(tokens.tobytes())
            indexed.write_index(place / f"{shard:05d}.idx", np.array([3, 4], np.int32), dtype="uint16")
            path = (place / f"{shard:05d}").relative_to(folder)
            entries.append(ShardEntry(str(path), 2, TOKENS_PER_SHARD, 0, "", ""))
        domains[name] = {"train": entries}
    tokenizer = TokenizerEntry(digest="", eos_token="", eos_token_id=0, vocab_size=1 << 16)
    content = manifest.build(tokenizer=tokenizer, dtype="uint16", domains=domains, inputs=[], settings={})
    files.write_json(folder / manifest.NAME, content)
    return folder


@pytest.fixture
def few_descriptors():
    """A quarter of the usual limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_shards_with_few_file_descriptors(few_descriptors, large_store):
    store = TokenStore.open(large_store)
    assert len(store.names) == NUM_DOMAINS
    for number, name in enumerate(store.names):
        tokens = store.rows(name, np.arange(store.num_sequences(name, 5)), 5).tokens  # most rows lie in two shards
        assert tokens.ravel().tolist() == stream_of(number).tolist(), name


def test_no_more_maps_than_the_limit(build_store, monkeypatch):
    monkeypatch.setattr(sharded_tokens, "MAX_MAPS", 4)
    store = build_store({name: [[[number]] for number in range(1, 8)] for name in "abc"})
    for _ in range(2):
        for name in store.names:
            tokens = store.rows(name, np.arange(7), 2).tokens
            assert tokens.tolist() == [[number, 0] for number in range(1, 8)]
            assert sum(len(tokens._maps) for tokens in store._tokens.values()) <= 4
