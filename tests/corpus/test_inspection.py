"""The numbers that people read off a corpus, against a store small enough to count by hand."""

from __future__ import annotations

import pytest

from doremi.corpus import TokenStore, describe, show
from doremi.corpus.storing.inspection import to_json


@pytest.fixture
def store(build_store) -> TokenStore:
    """With EOS: a has documents of 2, 2 and 5 tokens in two shards, b one of 6; one of 3 is held out."""
    return build_store({"b": [[[1, 2, 3, 4, 5]]], "a": [[[1], [2]], [[3, 4, 5, 6]]]}, {"a": [[[5, 6]]]})


def test_counts(store):
    a, b = describe(store, sequence_length=2)
    assert (a.name, a.documents, a.tokens, a.bytes, a.sequences) == ("a", 3, 9, 60, 4)
    assert (b.name, b.documents, b.tokens, b.bytes, b.sequences) == ("b", 1, 6, 50, 3)
    assert (a.held_out_documents, a.held_out_tokens, a.held_out_bytes) == (1, 3, 20)
    assert (b.held_out_documents, b.held_out_tokens, b.held_out_bytes) == (0, 0, 0)
    assert a.bytes_per_token == 10  # the three EOS tokens stand for no text


def test_natural_weights_in_three_countings(store):
    a, b = describe(store, sequence_length=2)
    assert (a.share, b.share) == (9 / 15, 6 / 15)
    assert (a.packed_weight, b.packed_weight) == (4 / 7, 3 / 7)  # 9 // 2 and 6 // 2 chunks
    assert (a.padded_weight, b.padded_weight) == (5 / 8, 3 / 8)  # 1 + 1 + 3 and 3 chunks


def test_no_domain_fills_a_chunk(store):
    assert [domain.packed_weight for domain in describe(store, sequence_length=100)] == [0, 0]
    assert [domain.padded_weight for domain in describe(store, sequence_length=100)] == [3 / 4, 1 / 4]


def test_sequences_are_those_of_the_packing(store):
    padded = TokenStore.open(store.path, packing="pad")
    assert [domain.sequences for domain in describe(padded, sequence_length=4)] == [4, 2]


def test_table(store):
    header, first, second, total, legend, facts = show(store, sequence_length=2).splitlines()
    columns = "domain documents tokens MB bytes/token sequences share packed padded held-out docs tokens MB"
    assert header.split() == columns.split()
    numbers = "3 9 0.00 10.00 4 0.6000 0.5714 0.6250 1 3 0.00"
    assert first.split() == ["a", *numbers.split()]
    assert second.split()[:2] == ["b", "1"]
    numbers = "4 15 0.00 10.00 7 1.0000 1.0000 1.0000 1 3 0.00"
    assert total.split() == ["total", *numbers.split()]
    assert legend.startswith("sequences of 2, pack; share: of the tokens; packed, padded: of the chunks")
    assert facts == f"uint16, vocabulary of 1,000, encoded by unknown; digest {store.digest}"
    assert len({len(line) for line in (header, first, second, total)}) == 1


def test_bytes_that_nobody_knows(build_store):
    assert show(build_store({"a": [[[]]]})).splitlines()[1].split()[:5] == ["a", "1", "1", "-", "-"]


def test_names_cannot_write_on_the_terminal(build_store):
    assert "\x1b" not in show(build_store({"\x1b[2J": [[[1]]]}))


def test_json(store):
    content = to_json(store, sequence_length=2)
    assert content["digest"] == store.digest
    assert content["domains"][0]["padded_weight"] == 5 / 8
