"""Large parquet files are divided by their own row groups; nobody who reads the store can tell."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doremi.corpus import prepare
from doremi.corpus.config import CorpusConfig
from doremi.corpus.reading import parquet
from doremi.corpus.reading.documents import read
from doremi.corpus.reading.inputs import input_files
from doremi.corpus.reading.parquet import _ranges
from doremi.errors import InputError
from tests.corpus.test_documents import contents

RECORDS = [{"text": f"text {number} " + "word " * (number % 9), "set": "ab"[number % 2]} for number in range(230)]


def write(path, records=RECORDS):
    """230 rows in row groups of 20, the last one of 10."""
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=20)
    return path


def config_of(path, tokenizer_folder, **settings) -> CorpusConfig:
    inputs = [{"path": str(path), "domain_field": "set"}]
    return CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)}, held_out_fraction=0.2, **settings)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([10], [(0, 1, 0, 10)]),
        ([4, 4, 4, 4, 4], [(0, 3, 0, 12), (3, 5, 3, 8)]),
        ([30, 1, 30, 1], [(0, 1, 0, 30), (1, 3, 1, 31), (3, 4, 3, 1)]),
        ([5, 5, 5, 5], [(0, 2, 0, 10), (2, 4, 2, 10)]),
    ],
)
def test_as_few_row_groups_as_fill_a_part(monkeypatch, sizes, expected):
    monkeypatch.setattr(parquet, "PART_BYTES", 10)
    assert list(_ranges(sizes, [1] * len(sizes))) == expected


@pytest.mark.usefixtures("file_by_file")
class TestDivided:
    """One file, many units."""

    @pytest.fixture
    def divided(self, monkeypatch, tmp_path):
        """A file of twelve row groups of about 380 bytes, and parts of two or three of them."""
        monkeypatch.setattr(parquet, "PART_BYTES", 700)
        return write(tmp_path / "a.parquet")

    @pytest.mark.parametrize("protocol", ["", "file://"])
    def test_the_parts_are_the_file(self, divided, protocol, tokenizer_folder):
        files = input_files(config_of(f"{protocol}{divided}", tokenizer_folder))
        assert 3 < len(files) < 12
        assert contents(files) == [(record["set"], record["text"]) for record in RECORDS]
        assert [file.part.first for file in files[1:]] == [file.part.stop for file in files[:-1]]
        assert 0.5 < sum(file.num_bytes() for file in files) / divided.stat().st_size <= 1  # the rest is the footer
        assert all(list(read(file))[-1].position == file.num_bytes() for file in files)

    def test_bad_row_is_counted_from_the_start_of_the_file(self, divided, tokenizer_folder):
        write(divided, [*RECORDS[:200], {"text": None, "set": "a"}, *RECORDS[201:]])
        files = input_files(config_of(divided, tokenizer_folder))
        with pytest.raises(InputError, match=r"a\.parquet: row 201: the text is None"):
            contents(files)

    def test_same_bytes_with_any_number_of_workers(self, divided, tokenizer_folder, tmp_path):
        one = prepare(config_of(divided, tokenizer_folder), tmp_path / "one")
        four = prepare(config_of(divided, tokenizer_folder, num_workers=4), tmp_path / "four")
        assert four.digest == one.digest
        assert len(one.manifest["domains"][0]["train"]) > 3

    def test_same_rows_with_parts_of_any_size(self, divided, tokenizer_folder, tmp_path, monkeypatch):
        stores = []
        for size in (1, 700, 1 << 30):
            monkeypatch.setattr(parquet, "PART_BYTES", size)
            stores.append(prepare(config_of(divided, tokenizer_folder), tmp_path / str(size)))
        finest, middle, whole = [len(store.manifest["domains"][0]["train"]) for store in stores]
        assert (finest, whole) == (12, 1)
        assert 1 < middle < 12
        for (one, other), name, split in itertools.product(itertools.pairwise(stores), "ab", ("train", "held_out")):
            rows = np.arange(one.num_sequences(name, 16, split=split))
            assert one.rows(name, rows, 16, split=split).tokens.tolist() == (
                other.rows(name, rows, 16, split=split).tokens.tolist()
            )
            documents = [[ids.tolist() for ids in store.documents(name, split=split)] for store in (one, other)]
            assert documents[0] == documents[1]
            assert one.num_bytes(name, split=split) == other.num_bytes(name, split=split)

    def test_another_part_is_another_unit(self, divided, tokenizer_folder):
        stats = [file.stats() for file in input_files(config_of(divided, tokenizer_folder))]
        assert len({str(stat) for stat in stats}) == len(stats) > 3

    def test_damaged_footer(self, divided, tokenizer_folder):
        divided.write_bytes(divided.read_bytes()[:-20])
        with pytest.raises(InputError, match=r"a\.parquet: cannot be read to the end"):
            input_files(config_of(divided, tokenizer_folder))


class TestInvalidUtf8:
    """Parquet promises UTF-8, and not all writers keep the promise."""

    @pytest.fixture
    def path(self, tmp_path):
        text = pa.array([b"good", b"ab\xff", b"fine"]).cast(pa.string(), safe=False)
        table = pa.table({"text": text, "set": ["a", "a", "a"], "meta": pa.StructArray.from_arrays([text], ["body"])})
        pq.write_table(table, tmp_path / "a.parquet")
        return tmp_path / "a.parquet"

    @pytest.mark.parametrize(("field", "column"), [("text", "text"), ("meta.body", "meta")])
    def test_error_names_row_and_column(self, path, field, column):
        [file] = input_files(CorpusConfig(inputs=[{"path": str(path), "domain": "d", "text_field": field}]))
        with pytest.raises(InputError, match=rf"a\.parquet: row 2: invalid UTF-8 at byte 3 of '{column}'; correct"):
            list(read(file))

    def test_skipped_and_counted(self, path):
        [file] = input_files(CorpusConfig(inputs=[{"path": str(path), "domain": "d"}]))
        [chunk] = read(file, on_bad_record="skip")
        assert [document.content for document in chunk.documents] == ["good", "fine"]
        assert chunk.skipped == {"invalid UTF-8": 1}

    def test_bytes_are_no_text(self, tmp_path):
        pq.write_table(pa.table({"text": [b"x"]}), tmp_path / "a.parquet")
        [file] = input_files(CorpusConfig(inputs=[{"path": str(tmp_path / "a.parquet"), "domain": "d"}]))
        with pytest.raises(InputError, match=r"row 1: the text is b'x' \(bytes\), expected a string"):
            list(read(file))
