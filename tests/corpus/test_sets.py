"""Evaluation sets: text that is stored with a corpus and never trained on."""

from __future__ import annotations

import json
import os

import pytest

from doremi import files
from doremi.corpus import TokenStore, prepare, show, verify
from doremi.corpus.config import CorpusConfig, SetConfig
from doremi.corpus.preparing import job as jobs
from doremi.corpus.preparing.job import Job, begin
from doremi.corpus.preparing.tasks import EncodeShare, Finish
from doremi.corpus.preparing.units import Encoder
from doremi.corpus.reading.split import HELD_OUT_ELSEWHERE, IN_A_SET
from doremi.corpus.storing import inspection, manifest
from doremi.corpus.tokenizing import tokenizers
from doremi.errors import InputError
from tests.corpus.conftest import content

TRAINING = {
    "Wiki": ["one cat", "two cats", "three cats", "an answer", "an answer", "held and asked"],
    "Code": ["x = 1", "y = 2", "an answer", "a letter"],
}
HELD_OUT = {"Wiki": ["held and asked", "a held cat", "an answer"], "Code": ["z = 3"]}
BENCH, CLIENT = ["an answer", "another answer", "an answer"], ["a letter", "held and asked"]


def decoded(store: TokenStore, name: str, split: str) -> list[str]:
    tokenizer = tokenizers.load(str(store.tokenizer_path))
    return [tokenizer.decode(ids) for ids in store.documents(name, split=split)]


def records(texts: dict[str, list[str]]) -> list[dict[str, str]]:
    return [{"text": text, "set": name} for name, of_name in texts.items() for text in of_name]


@pytest.fixture
def config(write_jsonl, tokenizer_folder) -> CorpusConfig:
    inputs = {key: write_jsonl(f"{key}.jsonl", records(texts)) for key, texts in (("t", TRAINING), ("h", HELD_OUT))}
    entries = {key: [{"path": str(path), "domain_field": "set"}] for key, path in inputs.items()}
    return CorpusConfig(inputs=entries["t"], held_out_inputs=entries["h"], tokenizer={"path": str(tokenizer_folder)})


@pytest.fixture
def sets(write_jsonl) -> list[SetConfig]:
    bench = write_jsonl("bench.jsonl", [{"answer": text} for text in BENCH])
    letters = write_jsonl("letters.jsonl", records({"whatever": CLIENT[:1]}))
    more = write_jsonl("more.jsonl", records({"whatever": CLIENT[1:]}))
    return [
        SetConfig(name="client", path=str(letters)),
        SetConfig(name="bench", path=str(bench), text_field="answer"),
        SetConfig(name="client", path=str(more)),
    ]


class TestContent:
    def test_sets_lie_beside_the_domains(self, config, sets, tmp_path):
        store = prepare(config, tmp_path / "out", sets=sets)
        assert (store.names, store.sets) == (("Code", "Wiki"), ("bench", "client"))
        assert decoded(store, "bench", "set") == BENCH  # of which equal ones are as good as any
        assert decoded(store, "client", "set") == CLIENT  # one set of two entries
        assert store.num_bytes("client", split="set") == len("a letter") + len("held and asked")

    def test_equal_training_documents_are_left_out_and_counted(self, config, sets, tmp_path, caplog):
        store = prepare(config, tmp_path / "out", sets=sets)
        assert decoded(store, "Wiki", "train") == ["one cat", "two cats", "three cats"]
        assert decoded(store, "Code", "train") == ["x = 1", "y = 2"]
        skipped = {item["name"]: item["skipped"] for item in store.manifest["inputs"]}
        # what is held out too is counted as it is without sets: "held and asked" and three times "an answer"
        assert skipped["t.jsonl"] == {HELD_OUT_ELSEWHERE: 4, IN_A_SET: 1}
        assert f"left out 4 x {HELD_OUT_ELSEWHERE}, 1 x {IN_A_SET}" in caplog.text

    def test_what_is_held_out_stays_in_both(self, config, sets, tmp_path):
        store = prepare(config, tmp_path / "out", sets=sets)
        assert decoded(store, "Wiki", "held_out") == HELD_OUT["Wiki"]

    def test_by_fraction(self, config, sets, tmp_path):
        chosen = CorpusConfig.model_validate({**config.model_dump(), "held_out_inputs": [], "held_out_fraction": 0.5})
        plain, store = prepare(chosen, tmp_path / "plain"), prepare(chosen, tmp_path / "out", sets=sets)
        for name in store.names:
            assert decoded(store, name, "held_out") == decoded(plain, name, "held_out")
            trained = [text for text in decoded(plain, name, "train") if text not in BENCH + CLIENT]
            assert decoded(store, name, "train") == trained
        dropped = sum(plain.num_documents(name) - store.num_documents(name) for name in store.names)
        assert dropped == inspection.num_left_out(store) > 0

    def test_no_tokenizer_is_trained_on_them(self, write_jsonl, tmp_path):
        path = write_jsonl("a.jsonl", [{"text": f"{i} zzzz"} for i in range(40)] + [{"text": "qqqq " * 40}])
        bench = write_jsonl("bench.jsonl", [{"text": "qqqq " * 40}])
        config = CorpusConfig(inputs=[{"path": str(path), "domain": "d"}], tokenizer={"vocab_size": 300})
        lengths = []
        for number, sets in enumerate([[], [SetConfig(name="bench", path=str(bench))]]):
            store = prepare(config, tmp_path / str(number), sets=sets)
            lengths.append(len(tokenizers.load(str(store.tokenizer_path)).encode([" qqqq"]).flat))
        assert lengths == [1, 5]

    def test_folders_and_readers_of_a_set(self, config, tmp_path, monkeypatch):
        """A folder called test is read as any other, and what a reader calls its documents does not matter."""
        (tmp_path / "bench" / "test").mkdir(parents=True)
        (tmp_path / "bench" / "test" / "a.txt").write_text("some text")
        (tmp_path / "set_reader.py").write_text("def read():\n    yield '../x', 'first'\n    yield 3, 'second'\n")
        monkeypatch.syspath_prepend(tmp_path)
        sets = [SetConfig(name="folder", path=str(tmp_path / "bench")), SetConfig(name="r", reader="set_reader:read")]
        store = prepare(config, tmp_path / "out", sets=sets)
        assert decoded(store, "folder", "set") == ["some text"]
        assert decoded(store, "r", "set") == ["first", "second"]


class TestDigest:
    def test_without_sets_every_byte_is_as_before(self, config, sets, tmp_path):
        plain, again = prepare(config, tmp_path / "plain"), prepare(config, tmp_path / "again", sets=[])
        assert content(plain.path) == content(again.path)
        assert "sets" not in plain.manifest
        assert jobs.config_digest(config) == jobs.config_digest(config, [])

    def test_shards_of_the_domains_do_not_depend_on_sets_that_share_no_document(self, config, write_jsonl, tmp_path):
        other = SetConfig(name="other", path=str(write_jsonl("other.jsonl", [{"text": "nobody wrote this"}])))
        plain, store = prepare(config, tmp_path / "plain"), prepare(config, tmp_path / "out", sets=[other])
        assert store.manifest["domains"] == plain.manifest["domains"]
        assert store.digest != plain.digest

    def test_other_sets_are_another_corpus(self, config, sets, tmp_path):
        prepare(config, tmp_path / "out", sets=sets)
        for others in ([], sets[:1], [*sets, SetConfig(name="third", path=sets[0].path)]):
            with pytest.raises(InputError, match="prepared with other settings"):
                prepare(config, tmp_path / "out", sets=others)

    @pytest.mark.parametrize("key", ["name", "file", "dropped"])
    def test_a_changed_manifest_is_refused(self, config, sets, tmp_path, key):
        path = prepare(config, tmp_path / "out", sets=sets).path / manifest.NAME
        changed = json.loads(path.read_text())
        if key == "dropped":
            del changed["sets"]
        elif key == "name":
            changed["sets"][0]["name"] = "changed"
        else:
            changed["sets"][0]["set"][0]["file"] = changed["sets"][1]["set"][0]["file"]
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError, match="was changed after it was written"):
            TokenStore.open(path.parent)

    def test_a_store_read_in_place_brings_its_sets(self, config, sets, tmp_path):
        original = prepare(config, tmp_path / "out", sets=sets)
        referring = prepare(CorpusConfig(store=str(original.path)), tmp_path / "other")
        assert referring.sets == original.sets
        assert decoded(referring, "bench", "set") == BENCH


class TestResuming:
    def test_killed_after_any_unit(self, config, sets, tmp_path, file_by_file, monkeypatch):
        """Stops before each unit in turn; the bytes are those of an undisturbed preparation."""
        expected = content(prepare(config, tmp_path / "undisturbed", sets=sets).path)
        encode = Encoder.encode
        for killed_at in range(5):
            folder = tmp_path / f"killed {killed_at}"

            def encode_or_die(self, ordinal, unit, *, limit=killed_at, **kwargs):
                if ordinal == limit:
                    raise KeyboardInterrupt
                encode(self, ordinal, unit, **kwargs)

            monkeypatch.setattr(Encoder, "encode", encode_or_die)
            with pytest.raises(KeyboardInterrupt):
                prepare(config, folder, sets=sets)
            monkeypatch.setattr(Encoder, "encode", encode)
            assert content(prepare(config, folder, sets=sets).path) == expected

    def test_killed_while_sets_are_read(self, config, sets, tmp_path, monkeypatch):
        write = jobs.write_hashes

        def write_or_die(path, hashes):
            if "sets" in path.parts:
                raise KeyboardInterrupt
            write(path, hashes)

        monkeypatch.setattr(jobs, "write_hashes", write_or_die)
        with pytest.raises(KeyboardInterrupt):
            prepare(config, tmp_path / "out", sets=sets)
        monkeypatch.setattr(jobs, "write_hashes", write)
        store = prepare(config, tmp_path / "out", sets=sets)
        assert decoded(store, "Code", "train") == ["x = 1", "y = 2"]

    def test_sets_that_changed_in_between_are_refused(self, config, sets, tmp_path, file_by_file):
        job = Job.of(config, tmp_path / "out", sets=sets)
        tokenizer = begin(job)
        Encoder(job.encoder_settings, tokenizer).encode(0, job.units[0])
        with pytest.raises(InputError, match="a preparation was begun here with other settings"):
            prepare(config, tmp_path / "out", sets=sets[:1])
        os.utime(sets[1].path, (0, 0))
        with pytest.raises(InputError, match=r"other inputs \(.*bench.jsonl\)"):
            prepare(config, tmp_path / "out", sets=sets)

    def test_many_tasks_make_the_same_bytes(self, config, sets, tmp_path, file_by_file):
        expected = content(prepare(config, tmp_path / "here", sets=sets).path)
        begin(Job.of(config, tmp_path / "tasks", sets=sets))
        for rank in range(2):
            EncodeShare(config, tmp_path / "tasks", sets=sets)(None, rank, 2)
        Finish(config, tmp_path / "tasks", sets=sets)(None, 0, 1)
        assert content(tmp_path / "tasks") == expected


class TestShown:
    def test_table_and_json(self, config, sets, tmp_path):
        store = prepare(config, tmp_path / "out", sets=sets)
        lines = show(store).splitlines()
        assert lines[-4].split() == ["evaluation", "set", "documents", "tokens", "MB"]
        assert lines[-3].split()[:2] == ["bench", "3"]
        assert lines[-1].endswith("left out because they equal one of a set: 1")
        found = inspection.to_json(store)
        assert found["left_out_for_sets"] == 1
        assert found["sets"][1] == {
            "name": "client",
            "documents": 2,
            "tokens": store.num_tokens("client", split="set"),
            "bytes": 22,
        }

    def test_nothing_about_sets_where_there_are_none(self, config, tmp_path):
        assert "set" not in show(prepare(config, tmp_path / "out")).splitlines()[-1]

    def test_verify_reads_them(self, config, sets, tmp_path):
        store = prepare(config, tmp_path / "out", sets=sets)
        assert "2 evaluation sets among them" in verify(store.path).assurance
        path = next((store.path / "set" / files.encode_name("bench")).glob("*.bin"))
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
        assert [fault.path for fault in verify(store.path).faults] == [path]


class TestRefused:
    @pytest.mark.parametrize("name", ["Wiki", "wiki"])
    def test_name_of_a_domain(self, config, sets, tmp_path, name):
        with pytest.raises(InputError, match=rf"'{name}' is the name of a domain of the corpus too \('Wiki'\)"):
            prepare(config, tmp_path / "out", sets=[SetConfig(name=name, path=sets[0].path)])

    def test_name_of_a_domain_before_anything_is_read(self, config, sets, tmp_path):
        named = CorpusConfig(inputs=[{"path": config.inputs[0].path, "domain": "Wiki"}], tokenizer=config.tokenizer)
        with pytest.raises(InputError, match="is the name of a domain"):
            prepare(named, tmp_path / "out", sets=[SetConfig(name="Wiki", path=sets[0].path)])
        assert not (tmp_path / "out" / "work").exists()

    def test_names_that_differ_in_case(self, config, sets, tmp_path):
        with pytest.raises(InputError, match=r"evaluation.sets: 'Client' and 'client' differ only in case"):
            prepare(config, tmp_path / "out", sets=[*sets, SetConfig(name="Client", path=sets[1].path)])

    def test_empty_set(self, config, write_jsonl, tmp_path):
        empty = SetConfig(name="empty", path=str(write_jsonl("empty.jsonl", [{"text": ""}])))
        with pytest.raises(InputError, match=r"evaluation.sets: 'empty' has no text"):
            prepare(config, tmp_path / "out", sets=[empty])

    def test_a_set_of_nothing_but_eos(self, config, write_jsonl, tmp_path):
        ids = write_jsonl("ids.jsonl", [{"input_ids": [0]}, {"input_ids": [0]}])
        with pytest.raises(InputError, match="'nothing' has no text"):
            prepare(config, tmp_path / "out", sets=[SetConfig(name="nothing", path=str(ids), ids_rows="documents")])

    def test_the_same_file_twice(self, config, sets, tmp_path):
        with pytest.raises(InputError, match=r"letters.jsonl: is an input twice"):
            prepare(config, tmp_path / "out", sets=[*sets, sets[0]])
        store = prepare(config, tmp_path / "out", sets=[*sets, SetConfig(name="other", path=sets[0].path)])
        assert decoded(store, "other", "set") == CLIENT[:1]

    def test_beside_a_store_read_in_place(self, config, sets, tmp_path):
        prepare(config, tmp_path / "store")
        with pytest.raises(InputError, match=r"'client' cannot go with corpus.store: nothing can be left out"):
            prepare(CorpusConfig(store=str(tmp_path / "store")), tmp_path / "out", sets=sets)

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({"path": "x"}, "name"),
            ({"name": "a"}, "give exactly one of `path`, `dataset` and `reader`"),
            ({"name": "a", "path": "x", "domain": "b"}, "domain"),
            ({"name": "", "path": "x"}, "name"),
            ({"name": "a" * 300, "path": "x"}, "name"),
        ],
    )
    def test_entries(self, entry, message):
        with pytest.raises(ValueError, match=message):
            SetConfig.model_validate(entry)


def test_names_that_are_no_folder_stay_inside(config, sets, tmp_path):
    name = "../../evil \x1b[2J"
    store = prepare(config, tmp_path / "out", sets=[SetConfig(name=name, path=sets[0].path)])
    assert store.sets == (name,)
    assert (store.path / "set" / files.encode_name(name)).is_dir()
    assert "\x1b" not in show(store)
