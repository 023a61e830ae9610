"""Documents out of every supported input, and every bad record with its words."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
import zstandard

from doremi.corpus.config import CorpusConfig
from doremi.corpus.reading import documents as documents_module
from doremi.corpus.reading.documents import BadRecordError, read
from doremi.corpus.reading.inputs import input_files
from doremi.errors import InputError, MissingFileError

PILE = {"domain_field": "meta.pile_set_name"}


def files_of(*inputs: dict, **config: object) -> list:
    return input_files(CorpusConfig(inputs=[{**item, "path": str(item["path"])} for item in inputs], **config))


def contents(files: list, **kwargs: object) -> list[tuple[str, object]]:
    """(domain, text or list of ids) of all documents."""
    found = []
    for file in files:
        for chunk in read(file, **kwargs):
            for document in chunk.documents:
                text = document.content
                found.append((document.domain, text if isinstance(text, str) else text.tolist()))
    return found


def skipped(file: object, **kwargs: object) -> dict[str, int]:
    total: dict[str, int] = {}
    for chunk in read(file, **kwargs):
        for reason, count in chunk.skipped.items():
            total[reason] = total.get(reason, 0) + count
    return total


class TestJsonLines:
    """.jsonl, .json, plain or compressed."""

    RECORDS = (
        {"text": "one", "meta": {"pile_set_name": "Wiki"}},
        {"text": "zwei\nä", "meta": {"pile_set_name": "Git/Hub"}},
    )

    @pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.gz", ".jsonl.zst", ".JSONL"])
    def test_documents_in_order(self, write_jsonl, suffix):
        path = write_jsonl(f"a{suffix}", self.RECORDS)
        assert contents(files_of({"path": path, **PILE})) == [("Wiki", "one"), ("Git/Hub", "zwei\nä")]

    @pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zstandard.compress)])
    def test_compressed_in_several_frames(self, tmp_path, suffix, compress):
        lines = [json.dumps(record).encode() + b"\n" for record in self.RECORDS]
        (tmp_path / f"a.jsonl.{suffix}").write_bytes(b"".join(map(compress, lines)))
        assert len(contents(files_of({"path": tmp_path / f"a.jsonl.{suffix}", **PILE}))) == 2

    def test_blank_lines_byte_order_mark_and_no_final_newline(self, tmp_path):
        (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "x"}\r\n\n  \n{"text": "y"}')
        assert contents(files_of({"path": tmp_path / "a.jsonl", "domain": "d"})) == [("d", "x"), ("d", "y")]

    def test_hash_is_xxh3_of_the_utf8_text(self, write_jsonl):
        [file] = files_of({"path": write_jsonl("a.jsonl", [{"text": "ä"}]), "domain": "d"})
        [document] = next(read(file)).documents
        assert (document.hash, document.num_bytes) == (xxhash.xxh3_64_intdigest("ä".encode()), 2)

    def test_a_key_that_holds_the_dots(self, write_jsonl):
        path = write_jsonl("a.jsonl", [{"body.en": "x", "meta.set": "d"}])
        assert contents(files_of({"path": path, "domain_field": "meta.set", "text_field": "body.en"})) == [("d", "x")]

    def test_chunks_are_bounded(self, write_jsonl, monkeypatch):
        monkeypatch.setattr(documents_module, "CHUNK_BYTES", 10)
        [file] = files_of({"path": write_jsonl("a.jsonl", [{"text": "12345678"}] * 5), "domain": "d"})
        chunks = list(read(file))
        assert [len(chunk.documents) for chunk in chunks] == [2, 2, 1]
        assert chunks[-1].position == file.num_bytes()


BAD_LINES = {  # line, message, reason that it is counted under
    "malformed JSON": (
        b'{"text": "x"',
        r"not valid JSON: .* at column 13; expected one JSON object a line",
        "malformed JSON",
    ),
    "not an object": (b'["x"]', r"expected a JSON object, found \['x'\] \(list\)", "malformed JSON"),
    "missing text": (
        b'{"body": "x", "meta": {"set": "d"}}',
        r"no field 'text' \(text_field\); the record has 'body'",
        "missing field",
    ),
    "missing domain": (
        b'{"text": "x", "meta": {"a": 1}}',
        r"no field 'meta\.set' .*; the record has 'text', 'meta\.a'",
        "missing field",
    ),
    "number for text": (
        b'{"text": 3, "meta": {"set": "d"}}',
        r"the text is 3 \(int\), expected a string",
        "text is not a string",
    ),
    "null for text": (b'{"text": null, "meta": {"set": "d"}}', r"the text is None", "text is not a string"),
    "invalid UTF-8": (
        b'{"text": "\xff", "meta": {"set": "d"}}',
        r"invalid UTF-8 at byte 11 of the line",
        "invalid UTF-8",
    ),
    "lone surrogate": (
        b'{"text": "a\\ud800", "meta": {"set": "d"}}',
        r"the text has a lone surrogate at character 2",
        "invalid UTF-8",
    ),
    "number for domain": (
        b'{"text": "x", "meta": {"set": 7}}',
        r"the domain is 7 \(int\), expected a string",
        "domain name",
    ),
    "empty domain": (b'{"text": "x", "meta": {"set": " "}}', r"domain name ' ' is empty", "domain name"),
    "domain with a lone surrogate": (
        b'{"text": "x", "meta": {"set": "a\\ud800"}}',
        r"domain name 'a\\ud800' is no valid Unicode",
        "domain name",
    ),
    "endless domain": (
        b'{"text": "x", "meta": {"set": "' + b"n" * 500 + b'"}}',
        r"domain name 'nn.* has 500 bytes once percent-encoded",
        "domain name",
    ),
    "nested without end": (b"[" * 200_000, r"not valid JSON", "malformed JSON"),
}


class TestBadRecords:
    """Each is an error with file and line, or left out and counted."""

    @pytest.mark.parametrize("case", BAD_LINES)
    def test_error_names_file_and_line(self, tmp_path, case):
        line, message, _ = BAD_LINES[case]
        good = b'{"text": "good", "meta": {"set": "d"}}\n'
        (tmp_path / "a.jsonl").write_bytes(good + b"\n" + line + b"\n" + good)
        [file] = files_of({"path": tmp_path / "a.jsonl", "domain_field": "meta.set"})
        with pytest.raises(InputError, match=rf"a\.jsonl:3: {message}.*on_bad_record=skip"):
            list(read(file))

    @pytest.mark.parametrize("case", BAD_LINES)
    def test_skipped_and_counted(self, tmp_path, case):
        good = b'{"text": "good", "meta": {"set": "d"}}\n'
        (tmp_path / "a.jsonl").write_bytes(good + BAD_LINES[case][0] + b"\n" + good)
        [file] = files_of({"path": tmp_path / "a.jsonl", "domain_field": "meta.set"})
        assert contents([file], on_bad_record="skip") == [("d", "good")] * 2
        assert skipped(file, on_bad_record="skip") == {BAD_LINES[case][2]: 1}

    def test_empty_documents_are_counted_in_either_case(self, write_jsonl):
        [file] = files_of({"path": write_jsonl("a.jsonl", [{"text": ""}, {"text": "x"}]), "domain": "d"})
        assert contents([file]) == [("d", "x")]
        assert skipped(file) == {"empty document": 1}

    @pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zstandard.compress)])
    @pytest.mark.parametrize("on_bad_record", ["error", "skip"])
    def test_truncated_file_is_always_an_error(self, tmp_path, suffix, compress, on_bad_record):
        rng = np.random.default_rng(0)
        lines = b"".join(json.dumps({"text": rng.bytes(300).hex()}).encode() + b"\n" for _ in range(2000))
        data = compress(lines)
        (tmp_path / f"a.jsonl.{suffix}").write_bytes(data[: len(data) * 3 // 4])
        [file] = files_of({"path": tmp_path / f"a.jsonl.{suffix}", "domain": "d"})
        with pytest.raises(InputError, match=rf"a\.jsonl\.{suffix}: cannot be read to the end.*truncated"):
            list(read(file, on_bad_record=on_bad_record))

    @pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zstandard.compress)])
    def test_wherever_it_is_truncated(self, write_jsonl, suffix, compress):
        path = write_jsonl(f"a.jsonl.{suffix}", [{"text": f"line {number}"} for number in range(50)])
        data = path.read_bytes()
        for size in range(len(data)):
            path.write_bytes(data[:size])
            [file] = files_of({"path": path, "domain": "d"})
            with pytest.raises(
                InputError, match=rf"a\.jsonl\.{suffix}: cannot be read to the end.*truncated or damaged"
            ):
                list(read(file))

    def test_not_what_its_name_says(self, tmp_path):
        (tmp_path / "a.jsonl.zst").write_bytes(b'{"text": "x"}\n')
        [file] = files_of({"path": tmp_path / "a.jsonl.zst", "domain": "d"})
        with pytest.raises(InputError, match=r"a\.jsonl\.zst: cannot be read to the end"):
            list(read(file))
        (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
        [file] = files_of({"path": tmp_path / "a.parquet", "domain": "d"})
        with pytest.raises(InputError, match=r"a\.parquet: cannot be read to the end"):
            list(read(file))


class TestFiles:
    """Which files an input names."""

    @pytest.mark.parametrize("name", ["nowhere.jsonl", "folder/nowhere"])
    def test_missing(self, tmp_path, name):
        with pytest.raises(MissingFileError, match=rf"{name}: no such file or folder"):
            files_of({"path": tmp_path / name, "domain": "d"})

    def test_pattern_without_match(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"\*\.jsonl: no file matches this pattern"):
            files_of({"path": tmp_path / "*.jsonl", "domain": "d"})

    def test_empty_folder(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"no input file in it; supported: \.jsonl"):
            files_of({"path": tmp_path, "domain": "d"})

    def test_unknown_type(self, tmp_path):
        (tmp_path / "a.csv").write_text("x")
        with pytest.raises(InputError, match=r"a\.csv: a type of file that is not read; supported: \.jsonl"):
            files_of({"path": tmp_path / "a.csv", "domain": "d"})

    def test_no_domain(self, write_jsonl):
        with pytest.raises(InputError, match=r"a\.jsonl: no domain for this input; set `domain`"):
            files_of({"path": write_jsonl("a.jsonl", [])})

    @pytest.mark.parametrize(
        ("domain", "message"),
        [("n" * 500, "has 500 bytes once percent-encoded"), (" ", "is empty"), ("", "is empty")],
    )
    def test_impossible_domain_of_a_recipe(self, write_jsonl, domain, message):
        with pytest.raises(InputError, match=rf"domain name '.* {message}"):
            files_of({"path": write_jsonl("a.jsonl", []), "domain": domain})

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
    def test_folder_whose_name_is_no_unicode(self, tmp_path):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
        folder.mkdir()
        (folder / "a.txt").write_text("x")
        with pytest.raises(InputError, match=r"domain name '\\udcff' is no valid Unicode; rename the domain"):
            files_of({"path": tmp_path})

    def test_pattern_in_sorted_order(self, write_jsonl, tmp_path):
        for name in ("b", "c", "a"):
            write_jsonl(f"{name}.jsonl", [{"text": name}])
        found = contents(files_of({"path": tmp_path / "*.jsonl", "domain": "d"}))
        assert found == [("d", "a"), ("d", "b"), ("d", "c")]

    def test_folder_per_domain(self, tmp_path):
        for name in ("Wiki/1.txt", "Wiki/deep/2.txt", "Code/1.txt", "Code/.hidden.txt", "Code/README.md"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name)
        files = files_of({"path": tmp_path})
        assert contents(files) == [("Code", "Code/1.txt"), ("Wiki", "Wiki/1.txt"), ("Wiki", "Wiki/deep/2.txt")]
        assert len(files) == 2  # one unit of work per domain, not per document

    def test_folder_per_domain_by_pattern(self, write_jsonl, tmp_path):
        for domain in ("a", "b"):
            write_jsonl(f"{domain}/x.jsonl", [{"text": domain}])
        assert contents(files_of({"path": tmp_path / "*"})) == [("a", "a"), ("b", "b")]
        assert contents(files_of({"path": tmp_path / "*" / "*.jsonl"})) == [("a", "a"), ("b", "b")]

    def test_domain_folder_named_like_a_split(self, write_jsonl, tmp_path):
        for domain in ("test", "wiki"):
            write_jsonl(f"{domain}/x.jsonl", [{"text": domain}])
        assert contents(files_of({"path": tmp_path})) == [("test", "test"), ("wiki", "wiki")]

    def test_text_file_has_no_fields(self, tmp_path):
        (tmp_path / "a.txt").write_text("x")
        with pytest.raises(InputError, match=r"a\.txt: a text file has no field 'meta\.set'"):
            files_of({"path": tmp_path / "a.txt", "domain_field": "meta.set"})

    def test_text_file_that_is_no_text(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"ab\xff")
        [file] = files_of({"path": tmp_path / "a.txt", "domain": "d"})
        with pytest.raises(BadRecordError, match=r"a\.txt: invalid UTF-8 at byte 3"):
            list(read(file))


class TestParquet:
    """Columns of text, flat or nested."""

    def test_rows(self, tmp_path):
        records = [{"text": f"t{i}", "meta": {"set": "ab"[i % 2]}, "other": i} for i in range(600)]
        pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet", row_group_size=100)
        files = files_of({"path": tmp_path / "a.parquet", "domain_field": "meta.set"})
        assert contents(files) == [(r["meta"]["set"], r["text"]) for r in records]

    def test_wrong_column(self, tmp_path):
        pq.write_table(pa.table({"body": ["x"], "n": [1]}), tmp_path / "a.parquet")
        [file] = files_of({"path": tmp_path / "a.parquet", "domain": "d"})
        with pytest.raises(InputError, match=r"a\.parquet: row 1: no field 'text' .* the record has 'body', 'n'"):
            list(read(file))

    def test_null_text(self, tmp_path):
        pq.write_table(pa.table({"text": ["x", None]}), tmp_path / "a.parquet")
        [file] = files_of({"path": tmp_path / "a.parquet", "domain": "d"})
        with pytest.raises(InputError, match=r"row 2: the text is None"):
            list(read(file))


def save_ids(path, rows, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"input_ids": datasets.Sequence(datasets.Value("int32"))})
    dataset = datasets.Dataset.from_dict({"input_ids": rows}, features=features)
    for name, values in columns.items():
        dataset = dataset.add_column(name, values)
    dataset.save_to_disk(path)


class TestSavedDatasets:
    """Folders of datasets.save_to_disk in the layouts that upstream's users have."""

    ROWS = ([1, 2, 3], [4, 5])

    @pytest.mark.parametrize("layout", ["top/{d}", "top/{d}/shard0"])
    def test_domains_from_folders(self, tmp_path, layout):
        for domain in ("ArXiv", "Pile-CC"):
            save_ids(tmp_path / layout.format(d=domain), self.ROWS, domain_id=[9, 9])
        files = files_of({"path": tmp_path / "top"})
        assert contents(files) == [(d, row) for d in ("ArXiv", "Pile-CC") for row in self.ROWS]
        assert [file.split for file in files] == [None, None]

    @pytest.mark.parametrize("layout", ["top/{s}/{d}", "top/{s}/{d}/00"])
    def test_splits_from_folders(self, tmp_path, layout, caplog):
        for split, row in (("train", [1]), ("validation", [2]), ("test", [3])):
            save_ids(tmp_path / layout.format(s=split, d="ArXiv"), [row])
        files = files_of({"path": tmp_path / "top"})
        assert [(file.split, *contents([file])) for file in files] == [
            ("held_out", ("ArXiv", [2])),
            ("train", ("ArXiv", [1])),
        ]
        assert "the test split is neither trained on nor evaluated" in caplog.text

    @pytest.mark.parametrize("pattern", ["top/**", "top/*", "top/*/*", "top/*/*.arrow"])
    def test_patterns_that_name_its_files(self, tmp_path, pattern):
        for name in ("a", "b"):
            save_ids(tmp_path / "top" / name, self.ROWS)
        assert contents(files_of({"path": tmp_path / pattern})) == [(name, row) for name in "ab" for row in self.ROWS]

    def test_shards_in_order(self, tmp_path):
        for shard in ("01", "00"):
            save_ids(tmp_path / "top" / "a" / shard, [[int(shard)]])
        assert contents(files_of({"path": tmp_path / "top"})) == [("a", [0]), ("a", [1])]

    def test_text_and_a_saved_dictionary_of_splits(self, tmp_path):
        splits = {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "validation")}
        datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
        files = files_of({"path": tmp_path / "saved", "domain": "d"})
        assert [(file.split, *contents([file])) for file in files] == [
            ("held_out", ("d", "validation")),
            ("train", ("d", "train")),
        ]

    def test_rows_are_views_of_arrows_buffer(self, tmp_path):
        save_ids(tmp_path / "top" / "a", [list(range(1000)), [5]])
        [file] = files_of({"path": tmp_path / "top"})
        [first, second] = next(read(file)).documents
        assert first.content.tolist() == list(range(1000))
        assert second.content.tolist() == [5]

    def test_row_without_ids(self, tmp_path):
        save_ids(tmp_path / "top" / "a", [[1], None])
        [file] = files_of({"path": tmp_path / "top"})
        with pytest.raises(InputError, match=r"top/a: row 2: the content is None"):
            list(read(file))

    def test_damaged_folder(self, tmp_path):
        save_ids(tmp_path / "top" / "a", self.ROWS)
        for arrow in (tmp_path / "top" / "a").glob("*.arrow"):
            arrow.write_bytes(arrow.read_bytes()[:100])
        [file] = files_of({"path": tmp_path / "top"})
        with pytest.raises(InputError, match=r"top/a: cannot be read to the end"):
            list(read(file))


@pytest.fixture
def reader_module(tmp_path, monkeypatch):
    """Writes the source of a module of readers and makes it importable."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str) -> None:
        (tmp_path / "my_readers.py").write_text(source)
        monkeypatch.delitem(sys.modules, "my_readers", raising=False)

    return write


def read_with(reader: str, **kwargs: object) -> list[tuple[str, object]]:
    return contents(input_files(CorpusConfig(inputs=[{"reader": reader}])), **kwargs)


class TestReader:
    """package.module:function."""

    def test_texts_and_token_ids(self, reader_module):
        reader_module("import numpy\ndef f():\n yield 'a', 'x'\n yield 'b', [1, 2]\n yield 'b', numpy.array([3])\n")
        assert read_with("my_readers:f") == [("a", "x"), ("b", [1, 2]), ("b", [3])]

    def test_not_importable(self):
        with pytest.raises(InputError, match=r"cannot import 'no_such_module'.*PYTHONPATH"):
            read_with("no_such_module:f")

    @pytest.mark.parametrize("reader", ["my_readers", "my_readers:", ":f"])
    def test_not_a_name(self, reader):
        with pytest.raises(InputError, match=r"expected package\.module:function"):
            read_with(reader)

    @pytest.mark.parametrize("name", ["g", "constant"])
    def test_no_such_function(self, reader_module, name):
        reader_module("constant = 3\n")
        with pytest.raises(InputError, match=rf"my_readers has no function '{name}'"):
            read_with(f"my_readers:{name}")

    def test_returns_nothing(self, reader_module):
        reader_module("def f():\n pass\n")
        with pytest.raises(InputError, match=r"returned NoneType; it must be a function without arguments that yields"):
            read_with("my_readers:f")

    @pytest.mark.parametrize("item", ["'text'", "('d', 'x', 3)", "3"])
    def test_yields_no_pairs(self, reader_module, item):
        reader_module(f"def f():\n yield {item}\n")
        with pytest.raises(InputError, match=r"reader my_readers:f yielded .*must yield pairs \(domain, text\)"):
            read_with("my_readers:f")

    @pytest.mark.parametrize("content", ["None", "[[1], [2]]", "[[1], [2, 3]]", "[1.5]", "['a']", "{}"])
    def test_yields_no_document(self, reader_module, content):
        reader_module(f"def f():\n yield 'd', {content}\n")
        with pytest.raises(InputError, match=r"my_readers:f: item 1: .*expected text or a flat list of token ids"):
            read_with("my_readers:f")
