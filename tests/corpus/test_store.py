"""Rows, documents and counts of a store against the token ids that went in."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi.corpus import TokenStore
from doremi.corpus.storing.indexed import IndexedShard
from doremi.corpus.storing.packing import padded_rows
from doremi.corpus.storing.sharded_tokens import MapLimit, ShardedTokens
from doremi.errors import InputError, MissingFileError

EOS = 0  # of `build_store`
TWO_SHARDS = [[[11, 12], [13]], [[14, 15, 16], [17]]]
STREAM = [11, 12, EOS, 13, EOS, 14, 15, 16, EOS, 17, EOS]


def test_row_i_is_the_window_i_of_the_concatenation(build_store):
    store = build_store({"a": TWO_SHARDS})
    assert store.num_sequences("a", 4) == 2
    rows = store.rows("a", np.array([1, 0, 1]), 4)
    assert rows.tokens.tolist() == [STREAM[4:8], STREAM[0:4], STREAM[4:8]]
    assert rows.lengths.tolist() == [4, 4, 4]
    assert rows.tokens.dtype == np.uint16


@pytest.mark.parametrize("length", range(1, 12))
def test_every_sequence_length_reads_the_same_stream(build_store, length):
    store = build_store({"a": TWO_SHARDS})
    num_rows = store.num_sequences("a", length)
    assert num_rows == len(STREAM) // length
    tokens = store.rows("a", np.arange(num_rows), length).tokens
    assert tokens.ravel().tolist() == STREAM[: num_rows * length]


def test_no_row_asked_for(build_store):
    rows = build_store({"a": TWO_SHARDS}).rows("a", np.array([], np.int64), 4)
    assert rows.tokens.shape == (0, 4)


@pytest.mark.parametrize("index", [-1, 2])
def test_row_that_does_not_exist(build_store, index):
    with pytest.raises(IndexError, match="'a' has 2 rows"):
        build_store({"a": TWO_SHARDS}).rows("a", np.array([0, index]), 4)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    length=st.integers(1, 12),
    max_maps=st.sampled_from([1, 2, 100]),
    data=st.data(),
)
def test_windows_are_slices_of_the_stream(tmp_path_factory, sizes, length, max_maps, data):
    folder = tmp_path_factory.mktemp("shards")
    stream = np.arange(1, sum(sizes) + 1, dtype="<u2")
    shards = []
    for shard, piece in enumerate(np.split(stream, np.cumsum(sizes)[:-1])):
        (folder / f"{shard}.bin").write_bytes(piece.tobytes())
        shards.append(IndexedShard(folder / str(shard), "uint16", len(piece)))
    tokens = ShardedTokens(shards, dtype="uint16", limit=MapLimit(max_maps))
    starts = np.array(data.draw(st.lists(st.integers(0, len(stream) - 1), min_size=1)))
    expected = [[*stream[start : start + length], *[0] * (start + length - len(stream))] for start in starts]
    assert tokens.windows(starts, length).tolist() == expected
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(stream)), st.integers(0, len(stream)))))
    assert tokens.slice(start, stop).tolist() == stream[start:stop].tolist()


def test_rows_read_from_the_map_not_from_a_copy(build_store):
    store = build_store({"a": [[list(range(1, 9))]]})
    view = store._tokens["a", "train"].slice(0, 8)
    assert not view.flags.owndata
    assert not view.flags.writeable


def test_documents_come_back_without_their_eos(build_store):
    store = build_store({"a": TWO_SHARDS}, {"a": [[[21], [22, 23]]]})
    assert [d.tolist() for d in store.documents("a")] == [[11, 12], [13], [14, 15, 16], [17]]
    assert [d.tolist() for d in store.documents("a", split="held_out")] == [[21], [22, 23]]


def test_counts(build_store):
    store = build_store({"b": TWO_SHARDS, "a": [[[1]]]}, {"b": [[[21], [22, 23]]]})
    assert store.names == ("a", "b")
    assert (store.num_documents("b"), store.num_tokens("b"), store.num_bytes("b")) == (4, 11, 70)
    assert store.num_documents("b", split="held_out") == 2
    assert store.num_tokens("b", split="held_out") == 5
    assert store.num_bytes("b", split="held_out") == 30
    assert store.num_sequences("b", 2, split="held_out") == 2
    assert store.num_tokens("a", split="held_out") == 0


def test_int32_ids_beyond_uint16(build_store):
    store = build_store({"a": [[[70_000, 1]]]}, dtype="int32")
    assert store.dtype == "int32"
    assert store.rows("a", np.array([0]), 3).tokens.tolist() == [[70_000, 1, EOS]]


class TestPad:
    """Packing "pad": each document begins a row."""

    def test_rows_of_documents(self, build_store):
        path = build_store({"a": TWO_SHARDS}).path
        store = TokenStore.open(path, packing="pad")
        rows = store.rows("a", np.arange(store.num_sequences("a", 3)), 3)
        assert rows.tokens.tolist() == [[11, 12, EOS], [13, EOS, EOS], [14, 15, 16], [EOS, EOS, EOS], [17, EOS, EOS]]
        assert rows.lengths.tolist() == [3, 2, 3, 1, 2]

    def test_another_packing_is_another_digest(self, build_store):
        packed = build_store({"a": TWO_SHARDS})
        assert TokenStore.open(packed.path, packing="pad").digest != packed.digest
        assert TokenStore.open(packed.path, packing="pack").digest == packed.digest

    @settings(derandomize=True, max_examples=50, deadline=None)
    @given(documents=st.lists(st.integers(1, 20), max_size=8), length=st.integers(1, 9))
    def test_rows_cut_every_document_by_itself(self, documents, length):
        expected, begin = [], 0
        for size in documents:
            expected += [(begin + at, min(length, size - at)) for at in range(0, size, length)]
            begin += size
        table = padded_rows(np.array(documents, np.int64), length)
        assert list(zip(table.starts.tolist(), table.lengths.tolist(), strict=True)) == expected


def test_a_store_reopens_in_another_process(build_store):
    store = build_store({"a": TWO_SHARDS})
    store.rows("a", np.array([0]), 4)
    data = pickle.dumps(TokenStore.open(store.path, packing="pad"))
    assert len(data) < 500  # the path, not the tokens
    assert pickle.loads(data).num_sequences("a", 3) == 5


def test_digest_is_of_the_content(build_store):
    store = build_store({"a": TWO_SHARDS})
    same = build_store({"a": TWO_SHARDS})
    assert same.digest == store.digest
    other = build_store({"a": [[[11, 12], [13]], [[14, 15, 16], [18]]]})
    assert other.digest != store.digest


class TestOpening:
    """What is refused, and with which words."""

    def test_no_folder(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"nowhere: no token store here.*no such folder; run doremi prepare"):
            TokenStore.open(tmp_path / "nowhere")

    def test_unfinished(self, tmp_path):
        with pytest.raises(MissingFileError, match="never prepared, or not to the end"):
            TokenStore.open(tmp_path)

    def test_another_manifest(self, tmp_path):
        (tmp_path / "manifest.json").write_text('{"files": []}')
        with pytest.raises(InputError, match="not the manifest of a token store"):
            TokenStore.open(tmp_path)

    def test_newer_version(self, build_store):
        path = build_store({"a": TWO_SHARDS}).path
        content = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**content, "version": 99}))
        with pytest.raises(InputError, match="format version 99, this release reads version 1"):
            TokenStore.open(path)

    @pytest.mark.parametrize("change", [{"dtype": "int32"}, {"digest": "0" * 32}, {"tokenizer": {}}, {"domains": []}])
    def test_changed_manifest(self, build_store, change):
        path = build_store({"a": TWO_SHARDS}).path
        content = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(InputError, match=r"manifest\.json: was changed after it was written: its digest is not"):
            TokenStore.open(path)

    def test_manifest_without_a_digest(self, build_store):
        path = build_store({"a": TWO_SHARDS}).path
        content = json.loads((path / "manifest.json").read_text())
        del content["digest"], content["domains"]
        (path / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match="was changed after it was written"):
            TokenStore.open(path)

    @pytest.mark.parametrize("suffix", ["bin", "idx"])
    def test_truncated_shard(self, build_store, suffix):
        path = build_store({"a": TWO_SHARDS}).path
        shard = path / "train" / "domain=a" / f"00001.{suffix}"
        shard.write_bytes(shard.read_bytes()[:-1])
        with pytest.raises(InputError, match=rf"00001\.{suffix}: \d+ bytes, the manifest says \d+: .*cut short"):
            TokenStore.open(path)

    @pytest.mark.parametrize("suffix", ["bin", "idx"])
    def test_missing_shard(self, build_store, suffix):
        path = build_store({"a": TWO_SHARDS}).path
        (path / "train" / "domain=a" / f"00000.{suffix}").unlink()
        with pytest.raises(MissingFileError, match=rf"00000\.{suffix}: a shard of the corpus is missing"):
            TokenStore.open(path)

    def test_unknown_domain(self, build_store):
        with pytest.raises(InputError, match=r"no domain 'z' .* it has 'a'"):
            build_store({"a": TWO_SHARDS}).num_tokens("z")


def test_domain_names_never_become_paths(build_store):
    store = build_store({"../../etc": TWO_SHARDS, "a/b": [[[1]]], "CON": [[[2]]]})
    assert store.names == ("../../etc", "CON", "a/b")
    assert store.rows("../../etc", np.array([0]), 3).tokens.tolist() == [STREAM[:3]]
    inside = {path.parent.name for path in store.path.rglob("*.bin")}
    assert inside == {"domain=..%2F..%2Fetc", "domain=a%2Fb", "domain=CON"}
    assert len(list(store.path.rglob("*.bin"))) == 4
