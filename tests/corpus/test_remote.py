"""Inputs by URL give what the same files on disk give; what a file system cannot do is said with the URL."""

from __future__ import annotations

import gzip
import json
import re
import sys
from datetime import UTC, datetime

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fsspec.implementations.memory import MemoryFileSystem

from doremi.corpus import prepare
from doremi.corpus.config import CorpusConfig
from doremi.corpus.preparing.job import Job, begin
from doremi.corpus.preparing.tasks import EncodeShare
from doremi.corpus.reading import remote
from doremi.corpus.reading.documents import read
from doremi.corpus.reading.inputs import input_files
from doremi.corpus.reading.remote import RemoteFile
from doremi.errors import InputError, MissingFileError
from tests.corpus.test_documents import contents

RECORDS = [{"text": f"text {number}", "meta": {"set": "ab"[number % 2]}} for number in range(40)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
BY_FIELD = {"domain_field": "meta.set"}


class StrangeError(Exception):
    """What a package for a protocol may raise."""


@pytest.fixture
def memory():
    """The file system behind memory://, empty."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


class Troubles:
    """Properties that files have, and operations that fail."""

    def __init__(self):
        self.properties: dict = {}
        self.failing: set = set()

    def fail(self, what):
        if what in self.failing:
            raise StrangeError(f"no answer to {what}")


@pytest.fixture
def troubles(memory, monkeypatch):
    """Gives memory:// other properties of files, and failures of a kind of its own."""
    troubles, find, opened = Troubles(), MemoryFileSystem.find, MemoryFileSystem._open

    def find_with_troubles(self, path, **settings):
        troubles.fail("find")
        return {
            name: {"size": info["size"], **troubles.properties} for name, info in find(self, path, **settings).items()
        }

    def open_with_troubles(self, path, mode="rb", **settings):
        troubles.fail("open")
        file = opened(self, path, mode, **settings)
        if "read" in troubles.failing:
            monkeypatch.setattr(file, "read", lambda size: troubles.fail("read"), raising=False)
        return file

    monkeypatch.setattr(MemoryFileSystem, "find", find_with_troubles)
    monkeypatch.setattr(MemoryFileSystem, "_open", open_with_troubles)
    return troubles


def files_of(path: object, **settings: object) -> list:
    return input_files(CorpusConfig(inputs=[{"path": str(path), **settings}]))


def parquet_bytes(records: list) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(records), sink, row_group_size=7)
    return sink.getvalue().to_pybytes()


FORMATS = {
    "a.jsonl": LINES,
    "a.json.gz": gzip.compress(LINES),
    "a.jsonl.zst": zstandard.compress(LINES),
    "a.parquet": parquet_bytes(RECORDS),
}


class TestReading:
    """The same documents as from a local path."""

    @pytest.mark.parametrize("name", FORMATS)
    @pytest.mark.parametrize("protocol", ["memory", "file"])
    def test_records(self, memory, tmp_path, protocol, name):
        folder = tmp_path if protocol == "file" else "/in"
        fsspec.filesystem(protocol).pipe(f"{folder}/{name}", FORMATS[name])
        [file] = files_of(f"{protocol}://{folder}/{name}", **BY_FIELD)
        assert isinstance(file.paths[0], RemoteFile)
        assert contents([file]) == [(record["meta"]["set"], record["text"]) for record in RECORDS]
        assert file.num_bytes() == len(FORMATS[name])
        assert list(read(file))[-1].position == len(FORMATS[name])

    @pytest.mark.parametrize(
        ("suffix", "compress"), [("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)]
    )
    def test_text_files_of_a_domain_are_one_unit(self, memory, suffix, compress):
        for name in ("b/2", "b/1", "a/deep/1"):
            memory.pipe(f"/in/{name}.txt{suffix}", compress(name.encode()))
        files = files_of("memory://in")
        assert contents(files) == [("a", "a/deep/1"), ("b", "b/1"), ("b", "b/2")]
        assert len(files) == 2

    def test_digest_is_that_of_the_local_files(self, memory, tmp_path, tokenizer_folder):
        local = tmp_path / "in"
        names = (
            "train/b/x/1",
            "train/b/0",
            "train/b-c/1",
            "train/a/1",
            *(f"validation/{name}/0" for name in ("a", "b", "b-c")),
        )
        for place in names:
            text = f"of {place}"
            (local / place).parent.mkdir(parents=True, exist_ok=True)
            (local / f"{place}.txt").write_text(text)
            memory.pipe(f"/in/{place}.txt", text.encode())
        for place, data in (
            ("train/a/2.jsonl.zst", zstandard.compress(LINES)),
            ("train/b/2.parquet", parquet_bytes(RECORDS)),
        ):
            (local / place).write_bytes(data)
            memory.pipe(f"/in/{place}", data)
        tokenizer = {"path": str(tokenizer_folder)}
        config = CorpusConfig(inputs=[{"path": str(local)}], tokenizer=tokenizer)
        expected = prepare(config, tmp_path / "local")
        for number, url in enumerate(("memory://in", f"file://{local}", f"file://{local}/*")):
            workers = 2 if url.startswith("file") else 1  # another process has another memory
            config = CorpusConfig(inputs=[{"path": url}], tokenizer=tokenizer, num_workers=workers)
            assert prepare(config, tmp_path / str(number)).digest == expected.digest

    def test_held_out_inputs(self, memory, tokenizer_folder, tmp_path):
        memory.pipe("/train.jsonl", LINES)
        memory.pipe("/held.jsonl", b"".join(LINES.splitlines(keepends=True)[:6]))
        inputs = {"inputs": "memory://train.jsonl", "held_out_inputs": "memory://held.jsonl"}
        config = {key: [{"path": url, **BY_FIELD}] for key, url in inputs.items()}
        store = prepare(CorpusConfig(**config, tokenizer={"path": str(tokenizer_folder)}), tmp_path / "out")
        assert [store.num_documents(name, split="held_out") for name in "ab"] == [3, 3]
        assert [store.num_documents(name) for name in "ab"] == [17, 17]


class TestFinding:
    """Which files a URL names."""

    def test_pattern_in_sorted_order(self, memory):
        for name in ("b", "c", "a", ".hidden"):
            memory.pipe(f"/in/{name}.jsonl", json.dumps({"text": name}).encode())
        memory.pipe("/in/other.csv.gz.part", b"")
        assert contents(files_of("memory://in/*.jsonl", domain="d")) == [("d", "a"), ("d", "b"), ("d", "c")]
        assert contents(files_of("memory://in", domain="d")) == [("d", "a"), ("d", "b"), ("d", "c")]

    @pytest.mark.parametrize("pattern", ["{top}/**", "{top}/*", "{top}/*/*.txt"])
    def test_no_file_twice_and_domains_below_the_plain_part(self, memory, tmp_path, pattern):
        for domain in ("a", "b"):
            memory.pipe(f"/in/{domain}/x.txt", domain.encode())
        memory.get("/in", str(tmp_path / "in"), recursive=True)
        for top in ("memory://in", tmp_path / "in"):
            assert contents(files_of(pattern.format(top=top))) == [("a", "a"), ("b", "b")]

    def test_nothing_there(self, memory):
        memory.pipe("/in/README.md", b"x")
        with pytest.raises(MissingFileError, match=r"memory://nowhere/a\.jsonl: no file there; check the URL"):
            files_of("memory://nowhere/a.jsonl", domain="d")
        with pytest.raises(MissingFileError, match=r"memory://in/\*\.jsonl: no file there"):
            files_of("memory://in/*.jsonl", domain="d")
        with pytest.raises(MissingFileError, match=r"memory://in: no input file in it; supported: \.jsonl"):
            files_of("memory://in", domain="d")

    def test_unknown_type(self, memory):
        memory.pipe("/in/a.csv", b"x")
        with pytest.raises(InputError, match=r"memory://.*in/a\.csv: a type of file that is not read; supported"):
            files_of("memory://in/a.csv", domain="d")

    def test_no_domain(self, memory):
        memory.pipe("/in/a.jsonl", LINES)
        with pytest.raises(InputError, match=r"memory://.*/in/a\.jsonl: no domain for this input"):
            files_of("memory://in/a.jsonl")

    def test_saved_dataset(self, memory, tmp_path):
        datasets.Dataset.from_dict({"text": ["x"]}).save_to_disk(tmp_path / "a")
        memory.put(str(tmp_path / "a"), "/in/a", recursive=True)
        with pytest.raises(
            InputError, match=r"memory://.*in/a: a folder of datasets\.save_to_disk is read from a local"
        ):
            files_of("memory://in")

    @pytest.mark.parametrize(("url", "package"), [("s3://b/k.jsonl", "s3fs"), ("gs://b/k.jsonl", "gcsfs")])
    def test_missing_package_is_named(self, monkeypatch, url, package):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(InputError, match=rf"{url}: this protocol cannot be read here: .*{package}.*pip install"):
            files_of(url, domain="d")

    def test_unknown_protocol(self):
        with pytest.raises(InputError, match=r"s33://b/k\.jsonl: this protocol cannot be read here: .*s33"):
            files_of("s33://b/k.jsonl", domain="d")

    def test_hub_without_network(self):
        with pytest.raises(
            InputError, match=r"hf://datasets/o/n/a\.parquet: .*[Oo]ffline.*check network and credentials"
        ):
            files_of("hf://datasets/o/n/a.parquet", domain="d")


class TestFaults:
    """Errors name the URL, and the line."""

    def test_bad_line(self, memory):
        memory.pipe("/in/a.jsonl", LINES + b"\n{bad\n")
        [file] = files_of("memory://in/a.jsonl", **BY_FIELD)
        with pytest.raises(InputError, match=r"^memory://.*in/a\.jsonl:42: not valid JSON"):
            list(read(file))

    def test_bad_text_file(self, memory):
        memory.pipe("/in/d/a.txt", b"\xff")
        with pytest.raises(InputError, match=r"^memory://.*in/d/a\.txt: invalid UTF-8 at byte 1"):
            contents(files_of("memory://in"))

    @pytest.mark.parametrize("name", ["a.json.gz", "a.jsonl.zst", "a.parquet"])
    def test_truncated(self, memory, name):
        memory.pipe(f"/in/{name}", FORMATS[name][:-20])
        [file] = files_of(f"memory://in/{name}", **BY_FIELD)
        with pytest.raises(
            InputError, match=rf"memory://.*in/{name}: cannot be read to the end: .*truncated or damaged"
        ):
            list(read(file, on_bad_record="skip"))

    @pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
    @pytest.mark.parametrize("what", ["open", "read"])
    def test_failure_of_the_file_system(self, memory, troubles, what, name):
        memory.pipe(f"/in/{name}", FORMATS[name])
        files = files_of(f"memory://in/{name}", **BY_FIELD)
        troubles.failing.add(what)
        with pytest.raises(
            InputError, match=rf"in/{name}: cannot be read: StrangeError: no answer to {what}; check net"
        ):
            contents(files)

    def test_failure_of_the_listing(self, memory, troubles):
        troubles.failing.add("find")
        with pytest.raises(InputError, match=r"in/\*: cannot be read: StrangeError: no answer to find; check network"):
            files_of("memory://in/*", **BY_FIELD)

    def test_file_that_was_deleted_meanwhile(self, memory):
        memory.pipe("/in/a.jsonl", LINES)
        [file] = files_of("memory://in/a.jsonl", **BY_FIELD)
        memory.rm("/in/a.jsonl")
        with pytest.raises(MissingFileError, match=r"memory://.*in/a\.jsonl: no file there"):
            list(read(file))


class TestIdentity:
    """What tells whether a remote file changed."""

    @pytest.mark.parametrize(
        ("properties", "version"),
        [
            ({"ETag": '"abc"', "LastModified": datetime(2024, 1, 1, tzinfo=UTC)}, '"abc"'),
            ({"md5Hash": "q1w2", "updated": "2024-01-01"}, "q1w2"),
            ({"blob_id": "0af1", "last_commit": None}, "0af1"),
            ({"etag": None, "LastModified": datetime(2024, 1, 1, tzinfo=UTC)}, "2024-01-01 00:00:00+00:00"),
            ({}, ""),
        ],
    )
    def test_best_property_there_is(self, memory, troubles, properties, version):
        memory.pipe("/in/a.jsonl", LINES)
        troubles.properties.update(properties)
        [file] = files_of("memory://in/a.jsonl", domain="d")
        assert file.stats() == [[len(LINES), version]]

    def test_listing_is_the_only_question_asked(self, memory, troubles):
        memory.pipe("/in/a.jsonl", LINES)
        [file] = files_of("memory://in/a.jsonl", domain="d")
        troubles.failing.update({"find", "open", "read"})
        assert file.num_bytes() == len(LINES)
        assert file.stats() == [[len(LINES), ""]]

    def test_change_is_noticed_by_the_next_run(self, memory, troubles, tmp_path, tokenizer_folder):
        memory.pipe("/in/a.jsonl", LINES)
        memory.pipe("/in/b.jsonl", b"{bad\n")
        troubles.properties["ETag"] = "first"
        inputs = [{"path": "memory://in/*.jsonl", **BY_FIELD}]
        config = CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)}, held_out_fraction=0.3)
        with pytest.raises(InputError, match=r"b\.jsonl:1: not valid JSON"):
            prepare(config, tmp_path / "out")
        troubles.properties["ETag"] = "second"
        with pytest.raises(InputError, match=r"begun here with other inputs \(memory://.*in/a\.jsonl"):
            prepare(config, tmp_path / "out")

    @pytest.mark.parametrize("change", ["version", "one more", "one less"])
    def test_change_is_noticed_by_the_next_task(self, memory, troubles, tmp_path, tokenizer_folder, change):
        for name in "ab":
            memory.pipe(f"/in/{name}.jsonl", LINES)
        troubles.properties["ETag"] = "first"
        inputs = [{"path": "memory://in/*.jsonl", **BY_FIELD}]
        config = CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)}, held_out_fraction=0.3)
        job = Job.of(config, tmp_path / "out")
        begin(job)
        if change == "version":
            troubles.properties["ETag"] = "second"
        elif change == "one more":
            memory.pipe("/in/c.jsonl", LINES)
        else:
            memory.rm("/in/b.jsonl")
        EncodeShare(config, tmp_path / "out")(None, 0, 2)
        [failure] = job.work.failures()
        names = {"version": r"a\.jsonl, memory://.*in/b", "one more": "c", "one less": "b"}[change]
        assert re.search(
            rf"sees other inputs \(memory://[^ ]*in/{names}\.jsonl\) than the machine that", failure.message
        )
        assert job.work.num_finished() == 0


@pytest.mark.parametrize(
    ("path", "expected"),
    [("s3://b/k", True), ("memory://x", True), ("a/b", False), ("/a:b//c", False), ("C://x", False), ("s3:/b", False)],
)
def test_what_is_a_url(path, expected):
    assert remote.is_remote(path) == expected
