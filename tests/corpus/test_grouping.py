"""Small input files share units: by their bytes alone, without mixing documents, counts or sides."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from doremi import files
from doremi.corpus import TokenStore, prepare
from doremi.corpus.config import CorpusConfig
from doremi.corpus.preparing import work
from doremi.corpus.preparing.tasks import EncodeShare, Finish
from doremi.corpus.reading.grouping import units
from doremi.corpus.reading.inputs import input_files
from doremi.errors import InputError
from tests.corpus.conftest import content
from tests.corpus.test_prepare import decoded, write_texts

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


@pytest.fixture
def config(tmp_path, tokenizer_folder) -> CorpusConfig:
    """Sixty files of two domain folders, in all formats, and one file of held-out documents."""
    for number in range(60):
        domain = tmp_path / "in" / "ab"[number % 2]
        domain.mkdir(parents=True, exist_ok=True)
        path = domain / f"{number:02d}{SUFFIXES[number % 4]}"
        write_texts(path.with_name(path.name.replace(".jsonl.", "_.")), [f"{number} {i} some text" for i in range(2)])
    for path in (tmp_path / "in").rglob("*_.*"):
        path.rename(path.with_name(path.name.replace("_.", ".jsonl.")))
    write_texts(tmp_path / "held.jsonl", ["held out", "7 0 some text"])
    return CorpusConfig(
        inputs=[{"path": str(tmp_path / "in")}],
        held_out_inputs=[{"path": str(tmp_path / "held.jsonl"), "domain": "a"}],
        tokenizer={"path": str(tokenizer_folder)},
    )


def units_of(config: CorpusConfig, unit_bytes: int) -> list[list[str]]:
    return [[file.short_name for file in unit.files] for unit in units(input_files(config), unit_bytes=unit_bytes)]


def sized(folder: Path, sizes: list[int], suffix: str = ".jsonl") -> CorpusConfig:
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        (folder / f"{number}{suffix}").write_bytes(b"x" * size)
    return CorpusConfig(inputs=[{"path": str(folder), "domain": "d"}])


class TestUnits:
    """Which files go together."""

    @pytest.mark.parametrize(
        ("sizes", "expected"),
        [
            ([40, 40, 40, 40, 40], ["012", "34"]),
            ([100, 100, 99, 1, 5], ["0", "1", "23", "4"]),
            ([1, 500, 1], ["01", "2"]),
            ([0, 0, 0], ["012"]),
            ([99, 0, 0, 1, 0, 1], ["0123", "45"]),
        ],
    )
    def test_a_unit_is_full_at_its_bytes(self, tmp_path, sizes, expected):
        config = sized(tmp_path / "in", sizes)
        assert ["".join(name[0] for name in unit) for unit in units_of(config, 100)] == expected

    def test_no_more_than_the_bytes_need(self, tmp_path):
        config = sized(tmp_path / "in", [(number * 7919) % 83 for number in range(300)])
        total = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
        for unit_bytes in (1, 50, 100, 1_000, 10**9):
            found = units_of(config, unit_bytes)
            assert len(found) <= total / unit_bytes + 1
            assert len([name for unit in found for name in unit]) == 300

    def test_text_files_too(self, tmp_path):
        """A tree of texts was one unit a domain, however large."""
        config = sized(tmp_path / "in", [40] * 6, suffix=".txt")
        assert [len(unit.files[0].paths) for unit in units(input_files(config), unit_bytes=100)] == [3, 3]
        assert [len(unit.files[0].paths) for unit in units(input_files(config), unit_bytes=10**9)] == [6]

    def test_an_entry_of_the_recipe_and_what_is_held_out_begin_anew(self, config, tmp_path):
        sized(tmp_path / "more", [1, 1])
        content = config.model_dump()
        content["inputs"].append({"path": str(tmp_path / "more"), "domain": "a"})
        found = units_of(CorpusConfig.model_validate(content), 10**9)
        assert [len(unit) for unit in found] == [1, 60, 2]

    def test_what_has_no_size_stands_alone(self, tmp_path):
        inputs = [{"reader": "a:b"}, {"reader": "a:c"}]
        assert [len(unit) for unit in units_of(CorpusConfig(inputs=inputs), 10**9)] == [1, 1]

    def test_remote_files(self, config, tmp_path):
        local = [len(unit) for unit in units_of(config, 300)]
        remote = config.model_copy(
            update={"inputs": [config.inputs[0].model_copy(update={"path": f"file://{tmp_path}/in"})]}
        )
        assert [len(unit) for unit in units_of(remote, 300)] == local
        assert 3 < len(local) < 40


def texts_of(store: TokenStore) -> dict[str, list[str]]:
    return {f"{name} {split}": decoded(store, name, split) for name in store.names for split in ("train", "held_out")}


class TestStores:
    """The same documents, whatever the units."""

    @pytest.mark.parametrize("unit_bytes", [0, 200, 400, 10**9])
    def test_documents_sides_and_order(self, config, tmp_path, monkeypatch, unit_bytes):
        monkeypatch.setattr(work, "UNIT_BYTES", unit_bytes)
        store = prepare(config, tmp_path / "out")
        expected = {
            name: [f"{n} {i} some text" for n in range("ab".index(name), 60, 2) for i in range(2)] for name in "ab"
        }
        expected["b"].remove("7 0 some text")
        assert texts_of(store) == {
            "a train": expected["a"],
            "a held_out": ["held out", "7 0 some text"],
            "b train": expected["b"],
            "b held_out": [],
        }
        skipped = [item for item in store.manifest["inputs"] if item["skipped"]]
        assert len(store.manifest["inputs"]) == 61
        assert skipped == [{"name": "07.parquet", "skipped": {"training document equal to a held-out one": 1}}]

    def test_few_shards(self, config, tmp_path):
        prepare(config, tmp_path / "out")
        assert len(list((tmp_path / "out").rglob("*.bin"))) == 3  # sixty-one before

    def test_bad_records_are_counted_by_file(self, config, tmp_path, caplog):
        (tmp_path / "in" / "a" / "04.jsonl").write_text('{"text": "x"}\n{bad\n\n{"text": ""}\n')
        with pytest.raises(InputError, match=r"04\.jsonl:2: not valid JSON"):
            prepare(config, tmp_path / "strict")
        store = prepare(config.model_copy(update={"on_bad_record": "skip"}), tmp_path / "out")
        lossy = {item["name"]: item["skipped"] for item in store.manifest["inputs"] if item["skipped"]}
        assert lossy["04.jsonl"] == {"empty document": 1, "malformed JSON": 1}
        assert set(lossy) == {"04.jsonl", "07.parquet"}
        assert "04.jsonl: left out 1 x empty document, 1 x malformed JSON" in caplog.text

    def test_the_bytes_do_not_depend_on_workers_or_tasks(self, config, tmp_path, monkeypatch):
        monkeypatch.setattr(work, "UNIT_BYTES", 500)
        alone = content(prepare(config, tmp_path / "alone").path)
        workers = prepare(config.model_copy(update={"num_workers": 2}), tmp_path / "workers")
        assert content(workers.path) == alone

        def in_tasks(job, tokenizer, lock):
            lock.share()
            monkeypatch.setattr(work, "UNIT_BYTES", 10**9)  # another machine's: the plan decides
            for rank in (1, 0):
                EncodeShare(config, job.folder)(None, rank, 2)

        assert content(prepare(config, tmp_path / "tasks", encode_all=in_tasks).path) == alone

    def test_a_preparation_goes_on_with_the_units_it_was_begun_with(self, config, tmp_path, monkeypatch):
        monkeypatch.setattr(work, "UNIT_BYTES", 500)
        alone = content(prepare(config, tmp_path / "alone").path)

        def one_task_of_two(job, tokenizer, lock):
            lock.share()
            EncodeShare(config, job.folder)(None, 0, 2)
            raise InputError("interrupted")

        with pytest.raises(InputError, match="interrupted"):
            prepare(config, tmp_path / "out", encode_all=one_task_of_two)
        monkeypatch.setattr(work, "UNIT_BYTES", 10**9)
        assert content(prepare(config, tmp_path / "out").path) == alone

    def test_one_that_an_older_release_began_is_refused(self, config, tmp_path):
        folder = tmp_path / "out"

        def begun(job, tokenizer, lock):
            raise InputError("begun")

        with pytest.raises(InputError, match="begun"):
            prepare(config, folder, encode_all=begun)
        plan = files.read_json(folder / "work" / "plan.json")
        del plan["unit_bytes"]
        files.write_json(folder / "work" / "plan.json", plan)
        (folder / "work" / "finished").mkdir()
        with pytest.raises(InputError, match="begun here with an older release of doremi and not finished; delete"):
            prepare(config, folder)

    def test_what_is_missing_is_counted_in_files(self, config, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(work, "UNIT_BYTES", 10**9)
        with pytest.raises(InputError, match="begun"):
            prepare(config, tmp_path / "out", encode_all=lambda *_: (_ for _ in ()).throw(InputError("begun")))
        EncodeShare(config, tmp_path / "out")(None, 0, 2)
        with pytest.raises(SystemExit, match="1"):
            Finish(config, tmp_path / "out")(None, 0, 1)
        assert "60 of 61 input files were not encoded" in capsys.readouterr().err


def pipe(path: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.symlink_to(path)


IRREGULAR = {"pipe": pipe, "socket": bound_socket, "dangling": dangling, "loop": loop}


class TestIrregularFiles:
    """They would be waited for, for ever: a test that does not end is one that fails."""

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("what", IRREGULAR)
    @pytest.mark.parametrize("suffix", [".jsonl", ".txt.gz", ".parquet"])
    def test_refused_in_a_folder(self, tmp_path, monkeypatch, what, suffix):
        (tmp_path / "in").mkdir()
        monkeypatch.chdir(tmp_path / "in")  # the path of a socket is short
        IRREGULAR[what](Path(f"a{suffix}"))
        (tmp_path / "in" / "b.jsonl").write_text(json.dumps({"text": "x"}))
        with pytest.raises(InputError, match=rf"in/a\{suffix}: (a link that leads nowhere|no regular file.*), so it"):
            prepare(CorpusConfig(inputs=[{"path": str(tmp_path / "in"), "domain": "d"}]), tmp_path / "out")

    @pytest.mark.timeout(60)
    def test_refused_where_named(self, tmp_path):
        os.mkfifo(tmp_path / "a.jsonl")
        for pattern in ("a.jsonl", "*.jsonl"):
            with pytest.raises(InputError, match=r"a\.jsonl: no regular file \(a pipe, socket or device\)"):
                prepare(CorpusConfig(inputs=[{"path": str(tmp_path / pattern), "domain": "d"}]), tmp_path / "out")

    def test_of_other_types_they_are_not_looked_at(self, tmp_path, tokenizer_folder):
        (tmp_path / "in").mkdir()
        os.mkfifo(tmp_path / "in" / "pipe")
        (tmp_path / "in" / "b.jsonl").write_text('{"text": "x"}\n{"text": "y"}\n')
        config = CorpusConfig(
            inputs=[{"path": str(tmp_path / "in"), "domain": "d"}], tokenizer={"path": str(tokenizer_folder)}
        )
        assert prepare(config, tmp_path / "out").num_documents("d") == 2

    def test_a_folder_within_itself(self, tmp_path):
        (tmp_path / "in" / "a").mkdir(parents=True)
        (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in")
        with pytest.raises(InputError, match=r"in/a/up: a link to a folder that it lies in"):
            prepare(CorpusConfig(inputs=[{"path": str(tmp_path / "in")}]), tmp_path / "out")
