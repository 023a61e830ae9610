"""Upstream's preprocessed folders in place: what an import of them would give, from the files that are there."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from doremi.corpus import TokenStore, open_arrow, prepare, verify
from doremi.corpus.config import CorpusConfig
from doremi.corpus.storing.arrow_shards import ArrowFile, _locate
from doremi.errors import InputError, MissingFileError
from doremi.mixture import MixtureSettings

EOS = 0  # of the tokenizer of the tests
TREE = {
    "train/ArXiv/00": [[5, 6, EOS], [7, 8], [], [9]],  # ragged, with an empty row
    "train/ArXiv/01": [[10, EOS, 11, 12]],
    "train/Pile-CC/00": [[20, 21, 22, 23, EOS]],
    "validation/ArXiv/00": [[30, 31], [EOS, 32]],
    "validation/Pile-CC/00": [[40, EOS]],
    "test/ArXiv/00": [[50, EOS]],
}


def save(folder, tree=TREE, *, dtype="int32", **how):
    for place, rows in tree.items():
        features = datasets.Features({"input_ids": datasets.Sequence(datasets.Value(dtype))})
        dataset = datasets.Dataset.from_dict({"input_ids": rows}, features=features)
        dataset = dataset.add_column("domain_id", [9] * len(rows))  # another number than its place gives
        dataset = dataset.add_column("attention_mask", [[1] * len(row) for row in rows])
        dataset.save_to_disk(folder / place, **how)
    return folder


@pytest.fixture
def tree(tmp_path):
    return save(tmp_path / "tree")


@pytest.fixture
def store(tree, tokenizer_folder):
    return open_arrow(tree, tokenizer=tokenizer_folder)


def same_reading(one: TokenStore, other: TokenStore) -> None:
    """Asserts that two stores hold the same rows and documents."""
    assert one.names == other.names
    for name in one.names:
        for split in ("train", "held_out"):
            documents = [[ids.tolist() for ids in store.documents(name, split=split)] for store in (one, other)]
            assert documents[0] == documents[1]
            assert one.num_documents(name, split=split) == other.num_documents(name, split=split)
            assert one.num_tokens(name, split=split) == other.num_tokens(name, split=split)
            for length in (1, 2, 3, 5):
                num_rows = one.num_sequences(name, length, split=split)
                assert num_rows == other.num_sequences(name, length, split=split)
                rows = [store.rows(name, np.arange(num_rows), length, split=split) for store in (one, other)]
                assert rows[0].tokens.tolist() == rows[1].tokens.tolist()
                assert rows[0].lengths.tolist() == rows[1].lengths.tolist()
        assert one.num_bytes(name, split="held_out") == other.num_bytes(name, split="held_out")


class TestReading:
    """Names, rows, counts."""

    def test_by_hand(self, store):
        assert store.names == ("ArXiv", "Pile-CC")
        assert store.rows("ArXiv", np.array([1, 0]), 5).tokens.tolist() == [[9, 10, EOS, 11, 12], [5, 6, EOS, 7, 8]]
        assert store.rows("ArXiv", np.array([0]), 4, split="held_out").tokens.tolist() == [[30, 31, EOS, 32]]
        assert [ids.tolist() for ids in store.documents("ArXiv")] == [[5, 6], [7, 8], [9], [10, EOS, 11, 12]]
        assert (store.num_tokens("ArXiv"), store.num_documents("ArXiv")) == (10, 4)
        assert (store.dtype, store.eos_token_id, store.vocab_size) == ("int32", EOS, 277)

    @pytest.mark.parametrize("packing", ["pack", "pad"])
    def test_is_what_an_import_gives(self, tree, tokenizer_folder, tmp_path, packing):
        config = CorpusConfig(inputs=[{"path": str(tree)}], tokenizer={"path": str(tokenizer_folder)}, packing=packing)
        imported = prepare(config, tmp_path / "imported")
        in_place = open_arrow(tree, tokenizer=tokenizer_folder, packing=packing)
        same_reading(in_place, imported)
        assert in_place.tokenizer_digest == imported.tokenizer_digest

    def test_another_packing_of_the_same_store(self, store, tree, tokenizer_folder):
        for packing in ("pad", "pack"):
            same_reading(store.with_packing(packing), open_arrow(tree, tokenizer=tokenizer_folder, packing=packing))
        assert store.with_packing("pad").digest != store.digest == store.with_packing("pack").digest
        assert store.packing == "pack"

    def test_sizes_without_a_tokenizer(self, store, tree):
        sizes = open_arrow(tree, tokenizer=None)
        for name in store.names:
            for split in ("train", "held_out"):
                assert sizes.num_tokens(name, split=split) == store.num_tokens(name, split=split)
                assert sizes.num_sequences(name, 3, split=split) == store.num_sequences(name, 3, split=split)
            assert sizes.num_bytes(name, split="held_out") == 0  # not known

    @settings(
        derandomize=True, max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        rows=st.lists(st.lists(st.integers(0, 99), max_size=5), min_size=1, max_size=12).filter(any),
        batch=st.integers(1, 4),
        shards=st.integers(1, 2),
        dtype=st.sampled_from(["int32", "int64", "uint16"]),
        length=st.integers(1, 7),
    )
    def test_rows_are_the_stream_over_batches_files_and_shards(
        self, tokenizer_folder, tmp_path_factory, rows, batch, shards, dtype, length
    ):
        folder = tmp_path_factory.mktemp("tree")
        features = datasets.Features({"input_ids": datasets.Sequence(datasets.Value(dtype))})
        for shard, part in enumerate(np.array_split(np.arange(len(rows)), shards)):
            content = {"input_ids": [rows[index] for index in part]}
            dataset = datasets.Dataset.from_dict(content, features=features)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(datasets.config, "DEFAULT_MAX_BATCH_SIZE", batch)
                dataset.save_to_disk(folder / "d" / str(shard), num_shards=max(min(2, len(part)), 1))
        store = open_arrow(folder, tokenizer=tokenizer_folder)
        stream = [token for row in rows for token in row]
        num_rows = store.num_sequences("d", length)
        assert num_rows == len(stream) // length
        tokens = store.rows("d", np.arange(num_rows), length).tokens
        assert tokens.dtype == dtype
        assert tokens.ravel().tolist() == stream[: num_rows * length]
        assert store.document_lengths("d").tolist() == [len(row) for row in rows if row]

    def test_nothing_is_copied(self, store):
        tokens = store._tokens["Pile-CC", "train"].slice(0, 5)
        assert not tokens.flags.owndata
        assert not tokens.flags.writeable

    def test_no_file_stays_open(self, tree, tokenizer_folder):
        descriptors = Path("/proc/self/fd")
        if not descriptors.is_dir():
            pytest.skip("counts descriptors in /proc")
        before = sorted(descriptors.iterdir())
        store = open_arrow(tree, tokenizer=tokenizer_folder)
        store.rows("ArXiv", np.array([0, 1]), 5)
        assert sorted(descriptors.iterdir()) == before

    def test_large_lists(self, tmp_path, tokenizer_folder):
        features = datasets.Features({"input_ids": datasets.LargeList(datasets.Value("int32"))})
        dataset = datasets.Dataset.from_dict({"input_ids": [[1, 2], [3]]}, features=features)
        dataset.save_to_disk(tmp_path / "tree" / "a")
        store = open_arrow(tmp_path / "tree", tokenizer=tokenizer_folder)
        assert store.rows("a", np.array([0]), 3).tokens.tolist() == [[1, 2, 3]]

    def test_lists_that_do_not_begin_where_their_buffer_does(self):
        ids = pa.array([[1, 2], [3], [4, 5]], pa.list_(pa.int32())).slice(1)
        mapped = ids.values.buffers()[1]
        shard = _locate(ArrowFile(Path("x")), ids, mapped)
        assert (shard.offset, shard.num_tokens, shard.num_rows) == (8, 3, 2)
        assert mapped.address + shard.ends_offset == ids.offsets.buffers()[1].address + 4

    def test_held_out_bytes_are_those_of_the_text(self, store, tokenizer_folder):
        text = AutoTokenizer.from_pretrained(tokenizer_folder).decode([30, 31, 32])
        assert store.num_bytes("ArXiv", split="held_out") == len(text.encode())
        assert store.num_bytes("ArXiv") == 0  # not known

    def test_reopens_in_another_process(self, store):
        data = pickle.dumps(store)
        assert len(data) < 1000
        same_reading(pickle.loads(data), store)
        assert pickle.loads(data).tokenizer_path == store.tokenizer_path

    def test_batches_of_the_loader(self, store):
        mixture = MixtureSettings(sequence_length=2)
        weights = dict.fromkeys(store.names, 0.5)
        schedule = mixture.schedule(store, store.names, weights=weights, global_batch_size=2, seed=0)
        batch = next(iter(mixture.loader(store, schedule, micro_batch_size=2)))
        expected = [
            store.rows(schedule.names[domain], np.array([row]), 2).tokens[0].tolist()
            for domain, row in zip(batch["domain_ids"].tolist(), batch["rows"].tolist(), strict=True)
        ]
        assert batch["input_ids"].tolist() == expected


class TestDigest:
    """It identifies the content without reading it."""

    def test_not_the_place(self, tree, tokenizer_folder, tmp_path):
        digest = open_arrow(tree, tokenizer=tokenizer_folder).digest
        assert open_arrow(tree.rename(tmp_path / "moved"), tokenizer=tokenizer_folder).digest == digest

    def test_other_rows_or_names(self, tree, tokenizer_folder):
        digest = open_arrow(tree, tokenizer=tokenizer_folder).digest
        (tree / "train" / "Pile-CC" / "00").rename(tree / "train" / "Pile-CC" / "07")
        renamed = open_arrow(tree, tokenizer=tokenizer_folder).digest
        save(tree, {"train/ArXiv/01": [[10, EOS, 11, 13]]})
        assert len({digest, renamed, open_arrow(tree, tokenizer=tokenizer_folder).digest}) == 3


class TestRefused:
    """What is not read in place."""

    def test_text(self, tmp_path, tokenizer_folder):
        datasets.Dataset.from_dict({"text": ["x"]}).save_to_disk(tmp_path / "tree" / "a")
        with pytest.raises(InputError, match=r"no column 'input_ids' of token ids; it has 'text'; text has to be"):
            open_arrow(tmp_path / "tree", tokenizer=tokenizer_folder)

    def test_other_files(self, tree, tokenizer_folder):
        (tree / "train" / "ArXiv" / "more.jsonl").write_text("{}")
        with pytest.raises(InputError, match=r"more\.jsonl: only folders of datasets\.save_to_disk .* corpus\.inputs"):
            open_arrow(tree, tokenizer=tokenizer_folder)

    def test_nothing_there(self, tmp_path, tokenizer_folder):
        with pytest.raises(MissingFileError, match="no such file or folder"):
            open_arrow(tmp_path / "nowhere", tokenizer=tokenizer_folder)
        with pytest.raises(MissingFileError, match="no such tokenizer folder or file"):
            open_arrow(tmp_path, tokenizer=tmp_path / "nowhere")

    def test_no_token(self, tmp_path, tokenizer_folder):
        save(tmp_path / "tree", {"a": [[], []]})
        with pytest.raises(InputError, match="tree: its datasets hold no token"):
            open_arrow(tmp_path / "tree", tokenizer=tokenizer_folder)

    @pytest.mark.parametrize("rows", [[[1], None], [[1, None]]])
    def test_missing_values(self, tmp_path, tokenizer_folder, rows):
        datasets.Dataset.from_dict({"input_ids": rows}).save_to_disk(tmp_path / "tree" / "a")
        with pytest.raises(InputError, match=r"column 'input_ids' has missing values"):
            open_arrow(tmp_path / "tree", tokenizer=tokenizer_folder)

    @pytest.mark.parametrize("rows", [[1.5], [[[1]]], [[1.5]]])
    def test_other_types(self, tmp_path, tokenizer_folder, rows):
        datasets.Dataset.from_dict({"input_ids": rows}).save_to_disk(tmp_path / "tree" / "a")
        with pytest.raises(InputError, match=r"column 'input_ids' is .*; only lists of integers are read in place"):
            open_arrow(tmp_path / "tree", tokenizer=tokenizer_folder)

    def test_two_types_of_integers(self, tmp_path, tokenizer_folder):
        save(tmp_path / "tree", {"a": [[1]]})
        save(tmp_path / "tree", {"b": [[1]]}, dtype="int64")
        with pytest.raises(InputError, match="stored as int32 and int64 in different datasets"):
            open_arrow(tmp_path / "tree", tokenizer=tokenizer_folder)

    def test_ids_of_another_tokenizer(self, tmp_path, tokenizer_folder):
        save(tmp_path / "tree", {"a": [[1, 999], [1]]})
        with pytest.raises(
            InputError, match=r"a: token ids from 1 to 999 in its first row, but the vocabulary has 277"
        ):
            open_arrow(tmp_path / "tree", tokenizer=tokenizer_folder)

    def test_names_that_differ_in_case(self, tmp_path, tokenizer_folder):
        save(tmp_path / "tree", {"wiki": [[1]], "Wiki": [[1]]})
        with pytest.raises(InputError, match="'Wiki' and 'wiki' differ only in case"):
            open_arrow(tmp_path / "tree", tokenizer=tokenizer_folder)

    def test_truncated(self, tree, tokenizer_folder):
        [path] = (tree / "train" / "Pile-CC" / "00").glob("*.arrow")
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(InputError, match=r"Pile-CC/00/data.*\.arrow: cannot be read to the end"):
            open_arrow(tree, tokenizer=tokenizer_folder)

    def test_missing_file(self, tree, tokenizer_folder):
        [path] = (tree / "train" / "Pile-CC" / "00").glob("*.arrow")
        path.unlink()
        with pytest.raises(InputError, match=r"Pile-CC/00/data.*\.arrow: cannot be read to the end: .*No such file"):
            open_arrow(tree, tokenizer=tokenizer_folder)


class TestInARecipe:
    """corpus.store: the corpus folder of a run refers to what lies elsewhere."""

    @pytest.fixture
    def config(self, tree, tokenizer_folder):
        return CorpusConfig(store=str(tree), tokenizer={"path": str(tokenizer_folder)})

    def test_saved_datasets(self, config, store, tmp_path):
        prepared = prepare(config, tmp_path / "out")
        same_reading(prepared, store)
        same_reading(TokenStore.open(tmp_path / "out"), store)
        assert prepare(config, tmp_path / "out").digest == prepared.digest
        assert AutoTokenizer.from_pretrained(prepared.tokenizer_path).eos_token_id == EOS
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"manifest.json", "tokenizer"}

    def test_token_store(self, write_jsonl, tmp_path, tokenizer_folder):
        path = write_jsonl("a.jsonl", [{"text": f"text {number}"} for number in range(50)])
        inputs = [{"path": str(path), "domain": "d"}]
        original = prepare(CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)}), tmp_path / "store")
        referring = prepare(CorpusConfig(store=str(original.path)), tmp_path / "out")
        same_reading(referring, original)
        assert referring.digest == original.digest
        assert TokenStore.open(tmp_path / "out", packing="pad").packing == "pad"
        assert verify(tmp_path / "out") == verify(original.path)
        assert verify(tmp_path / "out").faults == []
        shard, index = next(original.path.glob("train/*/*.bin")), next(original.path.glob("held_out/*/*.idx"))
        shard.write_bytes(shard.read_bytes()[:-2])
        index.unlink()
        assert [fault.path for fault in verify(tmp_path / "out").faults] == [shard, index]
        with pytest.raises(InputError, match=r"00000\.bin: \d+ bytes, the manifest says"):
            TokenStore.open(tmp_path / "out")
        with pytest.raises(InputError, match=r"00000\.bin: \d+ bytes, the manifest says"):
            prepare(CorpusConfig(store=str(original.path)), tmp_path / "another")

    def test_a_token_store_that_was_made_anew(self, write_jsonl, tmp_path, tokenizer_folder):
        for text in ("one", "another"):
            path = write_jsonl("a.jsonl", [{"text": f"{text} {number}"} for number in range(50)])
            inputs = [{"path": str(path), "domain": "d"}]
            config = CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)})
            prepare(config, tmp_path / "store")
            if text == "one":
                prepare(CorpusConfig(store=str(tmp_path / "store")), tmp_path / "out")
                shutil.rmtree(tmp_path / "store")
        for open_store in (TokenStore.open, TokenStore.attach):
            with pytest.raises(InputError, match=r"store: changed since .*out began to refer to it"):
                open_store(tmp_path / "out")
        [fault] = verify(tmp_path / "out").faults
        assert "changed since" in fault.problem

    def test_packing_is_only_a_way_to_read(self, config, tmp_path):
        prepare(config, tmp_path / "out")
        padded = prepare(config.model_copy(update={"packing": "pad"}), tmp_path / "out")
        assert padded.num_sequences("ArXiv", 3) == 5
        assert TokenStore.open(tmp_path / "out").packing == "pack"

    def test_changed_store_is_refused(self, config, tree, tmp_path):
        prepare(config, tmp_path / "out")
        save(tree, {"train/ArXiv/01": [[10, EOS, 11, 13]]})
        with pytest.raises(InputError, match=r"tree: changed since .*out began to refer to it \(digest"):
            TokenStore.open(tmp_path / "out")
        [fault] = verify(tmp_path / "out").faults
        assert "changed since" in fault.problem

    def test_verify_says_what_was_checked(self, config, tmp_path):
        prepare(config, tmp_path / "out")
        found = verify(tmp_path / "out")
        assert found.faults == []
        assert "every file is as it was written" not in found.assurance
        assert "all 21 token ids are within the vocabulary. There are no digests" in found.assurance

    def test_ids_that_are_not_the_tokenizers_are_found_by_verify(self, tree, config, tmp_path):
        save(tree, {"train/ArXiv/02": [[1], [999]]})
        prepare(config, tmp_path / "out")
        [fault] = verify(tmp_path / "out").faults
        assert (fault.path.parent.name, fault.problem) == ("02", "token ids outside the vocabulary")

    def test_other_settings_in_the_folder(self, config, tmp_path):
        prepare(config, tmp_path / "out")
        with pytest.raises(InputError, match="holds a corpus prepared with other settings"):
            prepare(config.model_copy(update={"store": "elsewhere"}), tmp_path / "out")

    def test_tokenizer_must_be_named(self, tree, tmp_path):
        with pytest.raises(InputError, match=r"corpus\.store .*tree: .* set corpus\.tokenizer\.path"):
            prepare(CorpusConfig(store=str(tree)), tmp_path / "out")

    @pytest.mark.parametrize(("split", "missing"), [("train", "held-out"), ("validation", "training")])
    def test_domain_on_one_side_only(self, tree, config, tmp_path, split, missing):
        save(tree, {f"{split}/Lonely": [[1]]})
        with pytest.raises(InputError, match=rf"domain 'Lonely' has no {missing} tokens; .*validation/NAME"):
            prepare(config, tmp_path / "out")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({}, "give `inputs`, or a `store`"),
            ({"inputs": [{"path": "x"}], "store": "y"}, "and not both"),
            ({"store": "y", "held_out_inputs": [{"path": "x"}]}, "drop `held_out_inputs`"),
        ],
    )
    def test_recipe(self, content, message):
        with pytest.raises(ValueError, match=message):
            CorpusConfig.model_validate(content)
