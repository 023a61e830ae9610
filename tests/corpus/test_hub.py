"""Datasets through datasets.load_dataset, streamed: a local folder goes the way that a hub id goes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doremi.corpus import prepare
from doremi.corpus.config import CorpusConfig, InputConfig
from doremi.corpus.preparing import tasks
from doremi.corpus.preparing.tasks import EncodeShare, Finish
from doremi.corpus.preparing.units import Encoder
from doremi.corpus.reading.documents import read
from doremi.corpus.reading.inputs import input_files
from doremi.errors import InputError, MissingFileError
from tests.corpus.conftest import content
from tests.corpus.test_documents import contents

RECORDS = [{"text": f"text {number}", "meta": {"set": "ab"[number % 2]}, "n": number} for number in range(60)]
EXPECTED = [(record["meta"]["set"], record["text"]) for record in RECORDS]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where datasets keeps its locks, also in worker processes."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A dataset of three training files and one for validation, as the hub has them."""
    data = tmp_path / "owner-name" / "data"
    data.mkdir(parents=True)
    for number in range(3):
        table = pa.Table.from_pylist(RECORDS[number * 20 : number * 20 + 20])
        pq.write_table(table, data / f"train-{number:05d}-of-00003.parquet")
    pq.write_table(
        pa.table({"text": ["held a", "held b"], "meta": [{"set": "a"}, {"set": "b"}]}),
        data / "validation-00000-of-00001.parquet",
    )
    return data.parent


def files_of(dataset: object, **settings: object) -> list:
    content = {"name": str(dataset)} if isinstance(dataset, Path) else dataset
    return input_files(CorpusConfig(inputs=[{"dataset": content, "domain_field": "meta.set", **settings}]))


class TestReading:
    """Documents and units of work."""

    def test_domain_by_column(self, folder):
        files = files_of(folder)
        assert contents(files) == EXPECTED
        assert [file.name for file in files] == [f"dataset {folder}, file {n} of 3" for n in (1, 2, 3)]
        assert [file.part.commit for file in files] == [None] * 3

    def test_fixed_domain(self, folder):
        files = files_of(folder, domain="web", domain_field=None)
        assert contents(files) == [("web", text) for _, text in EXPECTED]

    def test_other_split(self, folder):
        files = files_of({"name": str(folder), "split": "validation"})
        assert contents(files) == [("a", "held a"), ("b", "held b")]

    def test_json_lines(self, write_jsonl, tmp_path):
        write_jsonl("set/a.jsonl", RECORDS[:3])
        assert contents(files_of(tmp_path / "set")) == EXPECTED[:3]

    def test_configurations(self, write_jsonl, tmp_path):
        for name in ("one", "two"):
            write_jsonl(f"set/{name}.jsonl", [{"text": name}])
        configs = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("one", "two"))
        (tmp_path / "set" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
        settings = {"domain": "d", "domain_field": None}
        assert contents(files_of({"name": str(tmp_path / "set"), "config": "two"}, **settings)) == [("d", "two")]
        with pytest.raises(InputError, match=r"set \(config None, split train\): cannot be read: .*one.*two"):
            files_of(tmp_path / "set", **settings)

    def test_token_ids(self, tmp_path):
        (tmp_path / "set").mkdir()
        pq.write_table(pa.table({"input_ids": [[1, 2], [3]]}), tmp_path / "set" / "a.parquet")
        assert contents(files_of(tmp_path / "set", domain="d", domain_field=None)) == [("d", [1, 2]), ("d", [3])]

    def test_same_bytes_with_any_number_of_workers(self, folder, tokenizer_folder, tmp_path):
        content = {
            "inputs": [{"dataset": str(folder), "domain_field": "meta.set"}],
            "held_out_inputs": [{"dataset": {"name": str(folder), "split": "validation"}, "domain_field": "meta.set"}],
            "tokenizer": {"path": str(tokenizer_folder)},
        }
        one = prepare(CorpusConfig.model_validate(content), tmp_path / "one")
        two = prepare(CorpusConfig.model_validate({**content, "num_workers": 2}), tmp_path / "two")
        assert two.digest == one.digest
        assert [one.num_documents(name) for name in "ab"] == [30, 30]
        assert [one.num_documents(name, split="held_out") for name in "ab"] == [1, 1]

    def test_columns_that_do_not_matter_are_not_read(self, folder):
        from doremi.corpus.reading.records import open_records

        [record, *_] = open_records(files_of(folder)[0])
        assert record.value == {"text": "text 0", "meta": {"set": "a"}}


class TestRefused:
    """What cannot be read, and why."""

    def test_not_found_and_offline(self):
        with pytest.raises(MissingFileError, match=r"dataset nobody/nothing: cannot be had from .*HF_HUB_OFFLINE"):
            files_of({"name": "nobody/nothing"})

    def test_folder_without_data(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"nor is it a local folder of data files"):
            files_of(tmp_path)

    def test_no_such_split(self, folder):
        with pytest.raises(InputError, match=r"split nope\): cannot be read: .*'train', 'validation'"):
            files_of({"name": str(folder), "split": "nope"})

    def test_no_such_configuration(self, folder):
        with pytest.raises(InputError, match=r"config nope, split train\): cannot be read: .*'nope' not found"):
            files_of({"name": str(folder), "config": "nope"})

    def test_code_of_a_dataset_is_never_run(self, folder, tmp_path):
        script = folder / f"{folder.name}.py"
        script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit\n")
        with pytest.raises(InputError, match="cannot be read: Dataset scripts are no longer supported"):
            files_of(folder)
        assert not (tmp_path / "ran").exists()

    def test_bad_row(self, folder):
        with pytest.raises(InputError, match=r"owner-name, file 1 of 3: row 1: no field 'body' .* 'meta\.set', 'n'"):
            contents(files_of(folder, text_field="body"))

    def test_damaged_file(self, folder):
        files = files_of(folder)
        path = folder / "data" / "train-00001-of-00003.parquet"
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(InputError, match=r"owner-name \(config None, split train\): cannot be read"):
            list(read(files[1]))

    def test_change_is_noticed(self, folder):
        before = [file.stats() for file in files_of(folder)]
        assert [file.stats() for file in files_of(folder)] == before
        os.utime(folder / "data" / "train-00001-of-00003.parquet", (1, 1))
        assert files_of(folder)[0].stats() != before[0]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"dataset": "o/n"}, "a `dataset` needs `domain` .* or `domain_field`"),
            ({"dataset": "o/n", "path": "x", "domain": "d"}, "exactly one of `path`, `dataset` and `reader`"),
            ({"dataset": {"split": "train"}, "domain": "d"}, r"dataset\.name"),
            ({"dataset": {"name": "o/n", "trust_remote_code": True}, "domain": "d"}, "trust_remote_code"),
        ],
    )
    def test_recipe(self, content, message):
        with pytest.raises(ValueError, match=rf"(?s){message}"):
            InputConfig.model_validate(content)

    def test_a_name_is_short_for_a_mapping(self):
        config = InputConfig.model_validate({"dataset": "o/n", "domain": "d"})
        assert config == InputConfig.model_validate({"dataset": {"name": "o/n"}, "domain": "d"})
        assert InputConfig.model_validate(config.model_dump(mode="json")) == config


COMMITS = "0123456789" * 4, "abcdef0123" * 4


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """A dataset ``owner/name`` of the hub; returns the commits that its branches stand for, to be moved."""
    load_builder, load = datasets.load_dataset_builder, datasets.load_dataset
    second = shutil.copytree(folder, tmp_path / "second" / folder.name)
    pq.write_table(pa.Table.from_pylist(RECORDS[:5]), second / "data" / "train-00000-of-00003.parquet")
    commits = {COMMITS[0]: folder, COMMITS[1]: second}
    branches = {"main": COMMITS[0], "v1": COMMITS[0]}

    def builder_of_hub(name, config, *, revision):
        commit = branches.get(revision or "main", revision)
        builder = load_builder(str(commits[commit]), config)
        builder.hash = commit
        return builder

    def dataset_of_hub(name, config, *, revision, **settings):
        return load(str(commits[branches.get(revision or "main", revision)]), config, **settings)

    monkeypatch.setattr(datasets, "load_dataset_builder", builder_of_hub)
    monkeypatch.setattr(datasets, "load_dataset", dataset_of_hub)
    return branches


class TestABranchThatMoves:
    """A preparation reads the commit that it was begun with, however long it takes and in however many tasks."""

    @pytest.fixture
    def config(self, hub, tokenizer_folder):
        inputs = [{"dataset": "owner/name", "domain_field": "meta.set"}]
        return CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)}, held_out_fraction=0.3)

    def begin(self, config, folder):
        def nothing(*_):
            raise InputError("planned")

        with pytest.raises(InputError, match="planned"):
            prepare(config, folder, encode_all=nothing)

    @pytest.mark.parametrize("revision", [None, "v1"])
    def test_between_listing_and_reading(self, hub, revision):
        files = files_of({"name": "owner/name", "revision": revision})
        hub.update(main=COMMITS[1], v1=COMMITS[1])
        assert contents(files) == EXPECTED

    def test_a_new_preparation_takes_the_newest(self, hub):
        hub["main"] = COMMITS[1]
        assert contents(files_of({"name": "owner/name"})) == [*EXPECTED[:5], *EXPECTED[20:]]

    def test_between_two_runs(self, hub, config, tmp_path):
        expected = content(prepare(config, tmp_path / "undisturbed").path)
        self.begin(config, tmp_path / "out")
        hub["main"] = COMMITS[1]
        assert content(prepare(config, tmp_path / "out").path) == expected
        assert content(prepare(config, tmp_path / "anew").path) != expected

    def test_between_two_tasks(self, hub, config, tmp_path, monkeypatch):
        monkeypatch.setattr(tasks, "encode_in_processes", encode_in_this_one)
        expected = content(prepare(config, tmp_path / "undisturbed").path)
        self.begin(config, tmp_path / "out")
        for rank in range(4):
            hub["main"] = COMMITS[rank % 2]
            EncodeShare(config, tmp_path / "out")(None, rank, 4)
        Finish(config, tmp_path / "out")(None, 0, 1)
        assert content(tmp_path / "out") == expected


def encode_in_this_one(inputs, settings, *, num_workers):
    """In place of processes, which know nothing of what a test pretends."""
    encoder = Encoder(settings)
    for ordinal, file in inputs.items():
        encoder.encode(ordinal, file)
        yield ordinal
