"""Out to Hugging Face datasets and back in."""

from __future__ import annotations

import datasets
import numpy as np
import pytest

from doremi.corpus import TokenStore, prepare, to_datasets
from doremi.corpus.config import CorpusConfig
from doremi.corpus.storing import export
from doremi.corpus.storing.export import folder_name
from doremi.errors import InputError

TEXTS = {name: [f"{name} {i} " + "the cat sat on the mat " * (i % 5) for i in range(40)] for name in ("Wiki (en)", "b")}


@pytest.fixture
def config(write_jsonl, tokenizer_folder) -> CorpusConfig:
    records = [{"text": text, "set": name} for name, texts in TEXTS.items() for text in texts]
    inputs = [{"path": str(write_jsonl("a.jsonl", records)), "domain_field": "set"}]
    return CorpusConfig(inputs=inputs, held_out_fraction=0.2, tokenizer={"path": str(tokenizer_folder)})


@pytest.fixture
def store(config, tmp_path) -> TokenStore:
    return prepare(config, tmp_path / "store")


def exported(folder, split, name) -> list[list[int]]:
    return datasets.load_from_disk(folder / split / name)["input_ids"][:]


@pytest.mark.parametrize("packing", ["pack", "pad"])
@pytest.mark.parametrize("batch", [3, 1024])
def test_chunks_are_the_rows_of_training(store, tmp_path, packing, batch, monkeypatch):
    monkeypatch.setattr(export, "ROWS_PER_BATCH", batch)
    store = TokenStore.open(store.path, packing=packing)
    to_datasets(store, tmp_path / "out", sequence_length=16)
    for split, folder in (("train", "train"), ("held_out", "validation")):
        for name in store.names:
            rows = store.rows(name, np.arange(store.num_sequences(name, 16, split=split)), 16, split=split)
            expected = [row[:length].tolist() for row, length in zip(rows.tokens, rows.lengths, strict=True)]
            assert exported(tmp_path / "out", folder, name) == expected


def test_documents_come_back_as_the_same_corpus(store, config, tmp_path):
    to_datasets(store, tmp_path / "out", rows="documents")
    inputs = [{"path": str(tmp_path / "out"), "ids_rows": "documents"}]
    again = prepare(CorpusConfig(inputs=inputs, tokenizer=config.tokenizer), tmp_path / "again")
    assert again.names == store.names
    for split in ("train", "held_out"):
        for name in store.names:
            theirs = [ids.tolist() for ids in again.documents(name, split=split)]
            assert theirs == [ids.tolist() for ids in store.documents(name, split=split)]


def test_column_and_type(store, tmp_path):
    to_datasets(store, tmp_path / "out", rows="documents")
    dataset = datasets.load_from_disk(tmp_path / "out" / "train" / "b")
    assert dataset.features == datasets.Features({"input_ids": datasets.List(datasets.Value("int32"))})


def test_domain_smaller_than_a_chunk(store, tmp_path, caplog):
    length = store.num_tokens("b", split="held_out") + 1
    to_datasets(store, tmp_path / "out", sequence_length=length)
    assert not (tmp_path / "out" / "validation" / "b").exists()
    assert len(exported(tmp_path / "out", "train", "b")) == store.num_sequences("b", length)
    assert "validation/b: left out: not a single row" in caplog.text


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("Wikipedia (en)", "Wikipedia (en)"),
        ("Pile-CC", "Pile-CC"),
        ("Gutenberg (PG-19)", "Gutenberg (PG-19)"),
        ("../../etc", "domain=..%2F..%2Fetc"),
        ("CON", "domain=CON"),
        ("con.txt", "domain=con.txt"),
        ("Condor", "Condor"),
        (".hidden", "domain=.hidden"),
        ("ends with a dot.", "domain=ends%20with%20a%20dot."),
        ("日本", "domain=%E6%97%A5%E6%9C%AC"),
        ("a\n", "domain=a%0A"),
    ],
)
def test_folder_names(name, folder):
    assert folder_name(name) == folder


def test_nothing_is_overwritten(store, tmp_path):
    (tmp_path / "out").mkdir()
    to_datasets(store, tmp_path / "out", rows="documents")
    with pytest.raises(InputError, match=r"out: exists already; export into a folder that does not"):
        to_datasets(store, tmp_path / "out")


def test_a_failed_export_leaves_nothing(store, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.Dataset, "save_to_disk", lambda *_: 1 / 0)
    before = set(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError):
        to_datasets(store, tmp_path / "out", rows="documents")
    assert set(tmp_path.iterdir()) == before


def test_progress_bars_of_datasets_are_left_as_they_were(store, tmp_path):
    assert not datasets.are_progress_bars_disabled()
    to_datasets(store, tmp_path / "out")
    assert not datasets.are_progress_bars_disabled()
