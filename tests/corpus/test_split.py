"""The split as a function of content, and the bounded sample for the tokenizer."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi.corpus.reading.documents import Document
from doremi.corpus.reading.split import HeldOutRule, TextSample, _mixed, read_hashes, write_hashes


def document(content_hash: int, num_bytes: int = 1) -> Document:
    return Document("d", f"{content_hash}", content_hash, num_bytes)


def test_threshold_on_the_range_of_the_hash():
    rule = HeldOutRule(0.25)
    assert rule.side(document((1 << 62) - 1), None) == "held_out"
    assert rule.side(document(1 << 62), None) == "train"


def test_place_decides_where_it_says_so():
    rule = HeldOutRule(0.25)
    assert rule.side(document(0), "train") == "train"
    assert rule.side(document((1 << 64) - 1), "held_out") == "held_out"


def test_training_document_equal_to_a_held_out_one_is_left_out():
    largest = (1 << 64) - 1
    rule = HeldOutRule(0, np.array([5, largest], np.uint64))
    assert [rule.side(document(value), "train") for value in (4, 5, 6, largest)] == ["train", None, "train", None]
    assert rule.side(document(5), None) is None
    assert rule.side(document(5), "held_out") == "held_out"


def test_hashes_survive_the_disk(tmp_path):
    write_hashes(tmp_path / "a", [7, (1 << 64) - 1, 7])
    write_hashes(tmp_path / "b", [])
    write_hashes(tmp_path / "c", [3])
    found = read_hashes([tmp_path / name for name in "abc"])
    assert found.tolist() == [3, 7, (1 << 64) - 1]
    assert read_hashes([]).tolist() == []


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=4, max_size=20), max_bytes=st.integers(5, 40), seed=st.integers(0, 99)
)
def test_sample_is_the_longest_run_of_lowest_keys_that_fits(sizes, max_bytes, seed):
    documents = [document(random.Random(i).getrandbits(64), size) for i, size in enumerate(sizes)]
    expected, used = [], 0
    for item in sorted(documents, key=lambda item: _mixed(item.hash)):
        used += item.num_bytes
        if used > max_bytes:
            break
        expected.append(item.content)
    sample = TextSample(max_bytes)
    stream = documents * 2  # a text that comes twice counts once
    random.Random(seed).shuffle(stream)
    for item in stream:
        sample.add(item)
    assert sample.texts() == expected


def test_sample_passes_over_token_ids():
    sample = TextSample(100)
    sample.add(Document("d", np.array([1]), 1, 8))
    assert sample.texts() == []


def test_sample_takes_domains_in_proportion():
    rng = random.Random(0)
    sample = TextSample(1000)
    for i in range(40_000):
        name = "big" if i % 4 else "small"
        sample.add(Document(name, f"{name}", rng.getrandbits(64), 1))
    texts = sample.texts()
    assert len(texts) == 1000
    assert abs(texts.count("big") - 750) < 60  # 4 standard deviations of a fair draw are 55
