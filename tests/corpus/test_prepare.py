"""A prepared corpus against the documents that went in, and what is refused."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from doremi import files
from doremi.corpus import TokenStore, from_datasets, prepare, show
from doremi.corpus.config import CorpusConfig, TokenizerConfig
from doremi.corpus.reading import sources
from doremi.corpus.tokenizing.backends import ReferenceEncoder
from doremi.errors import InputError

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]


def texts_of(domain: str, number: int) -> list[str]:
    return [f"{domain} {i} " + " ".join(WORDS[(i * 7 + j * j) % 8] for j in range(i % 13)) for i in range(number)]


def records_of(*domains: str, number: int = 60) -> list[dict]:
    columns = [[{"text": text, "set": domain} for text in texts_of(domain, number)] for domain in domains]
    return [record for row in zip(*columns, strict=True) for record in row]  # interleaved, as in the Pile


def decoded(store: TokenStore, name: str, split: str = "train") -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(store.tokenizer_path)
    return [tokenizer.decode(ids.tolist()) for ids in store.documents(name, split=split)]


def rows_of(store: TokenStore, name: str, length: int) -> list[list[int]]:
    """The real tokens of every row."""
    rows = store.rows(name, np.arange(store.num_sequences(name, length)), length)
    return [row[:size].tolist() for row, size in zip(rows.tokens, rows.lengths, strict=True)]


def write_texts(path: Path, texts: list[str]) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path, row_group_size=2)
    else:
        path.write_bytes({".jsonl": bytes, ".zst": zstandard.compress, ".gz": gzip.compress}[path.suffix](lines))


def is_held_out(text: str, fraction: float) -> bool:
    return xxhash.xxh3_64_intdigest(text.encode()) < fraction * 2**64


@pytest.fixture
def corpus(write_jsonl, tmp_path):
    """(config, folder) of two files in which two domains are interleaved, with a tokenizer that is trained."""
    write_jsonl("in/0.jsonl", records_of("Wiki", "Code")[:60])
    write_jsonl("in/1.jsonl.zst", records_of("Wiki", "Code")[60:])
    config = CorpusConfig(
        inputs=[{"path": str(tmp_path / "in" / "*.jsonl*"), "domain_field": "set"}],
        held_out_fraction=0.2,
        tokenizer={"vocab_size": 400},
    )
    return config, tmp_path / "out"


class TestContent:
    """Nothing lost, nothing mixed."""

    def test_documents_in_order_on_the_side_of_their_hash(self, corpus, caplog, capsys):
        caplog.set_level("INFO")
        store = prepare(*corpus)
        megabytes = sum(len(text) for name in ("Code", "Wiki") for text in texts_of(name, 60)) / 1e6
        assert caplog.messages[-1].endswith(
            f"1.jsonl.zst (2 of 2 input files, 120 documents, {megabytes:.1f} MB so far)"
        )
        assert store.names == ("Code", "Wiki")
        for name in store.names:
            for split, held_out in (("train", False), ("held_out", True)):
                expected = [text for text in texts_of(name, 60) if is_held_out(text, 0.2) == held_out]
                assert decoded(store, name, split) == expected
                assert store.num_documents(name, split=split) == len(expected)
                assert store.num_bytes(name, split=split) == sum(map(len, expected))

    def test_rows_are_the_documents_joined_by_eos(self, corpus):
        store = prepare(*corpus)
        stream = [token for ids in store.documents("Wiki") for token in (*ids.tolist(), store.eos_token_id)]
        num_rows = store.num_sequences("Wiki", 32)
        assert store.num_tokens("Wiki") == len(stream)
        assert store.rows("Wiki", np.arange(num_rows), 32).tokens.ravel().tolist() == stream[: num_rows * 32]

    def test_tokenizer_is_trained_on_training_text_only(self, write_jsonl, tmp_path):
        texts = [text for text in (f"{i} qqqq" for i in range(200)) if is_held_out(text, 0.3)]
        texts += [text for text in (f"{i} zzzz" for i in range(100)) if not is_held_out(text, 0.3)]
        path = write_jsonl("a.jsonl", [{"text": text} for text in texts])
        inputs = [{"path": str(path), "domain": "d"}]
        config = CorpusConfig(inputs=inputs, held_out_fraction=0.3, tokenizer={"vocab_size": 300})
        store = prepare(config, tmp_path / "out")
        tokenizer = AutoTokenizer.from_pretrained(store.tokenizer_path)
        assert len(tokenizer(" qqqq")["input_ids"]) == 5
        assert len(tokenizer(" zzzz")["input_ids"]) == 1

    @pytest.mark.parametrize("domains", [["a"], [f"domain {number}" for number in range(30)]])
    def test_every_file_is_read_once_however_many_domains_it_has(
        self, write_jsonl, tmp_path, tokenizer_folder, monkeypatch, domains
    ):
        for number in range(3):
            write_jsonl(f"in/{number}.jsonl.zst", records_of(*domains, number=40))
        inputs = [{"path": str(tmp_path / "in"), "domain_field": "set"}]
        config = CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)}, held_out_fraction=0.3)
        opened = []

        def recorded(path):
            opened.append(path.name)
            return sources.opened(path)

        monkeypatch.setattr("doremi.corpus.reading.records.opened", recorded)
        assert len(prepare(config, tmp_path / "out").names) == len(domains)
        assert opened == ["0.jsonl.zst", "1.jsonl.zst", "2.jsonl.zst"]

    def test_same_text_same_digest_whatever_the_place(self, corpus, tmp_path):
        config, folder = corpus
        first = prepare(config, folder)
        moved = (tmp_path / "in").rename(tmp_path / "elsewhere")
        (moved / "0.jsonl").rename(moved / "00.jsonl")
        inputs = [{"path": str(moved / "*.jsonl*"), "domain_field": "set"}]
        second = prepare(config.model_copy(update={"inputs": type(config)(inputs=inputs).inputs}), tmp_path / "out2")
        assert second.digest == first.digest
        assert str(tmp_path) not in (folder / "manifest.json").read_text()

    def test_another_text_another_digest(self, corpus, write_jsonl, tmp_path, tokenizer_folder):
        config, folder = corpus
        config = config.model_copy(update={"tokenizer": type(config.tokenizer)(path=str(tokenizer_folder))})
        first = prepare(config, folder)
        write_jsonl("in/0.jsonl", [*records_of("Wiki", "Code")[:60], {"text": "more", "set": "Wiki"}])
        second = prepare(config, tmp_path / "out2")
        assert second.tokenizer_digest == first.tokenizer_digest
        assert second.digest != first.digest

    def test_manifest(self, corpus, file_by_file):
        config, folder = corpus
        prepare(config, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        shard = manifest["domains"][1]["train"][1]
        assert shard["file"] == "train/domain=Wiki/00001"
        assert shard["bin_digest"] == files.digest_file(folder / "train/domain=Wiki/00001.bin")
        assert shard["idx_digest"] == files.digest_file(folder / "train/domain=Wiki/00001.idx")
        assert manifest["inputs"] == [{"name": "0.jsonl", "skipped": {}}, {"name": "1.jsonl.zst", "skipped": {}}]
        assert not (folder / "work").exists()

    def test_what_encoded_is_recorded_and_no_part_of_the_digest(self, corpus, tmp_path, monkeypatch):
        config, folder = corpus
        config = config.model_copy(update={"tokenizer": TokenizerConfig(vocab_size=400, backend="tokenizers")})
        store = prepare(config, folder)
        assert store.manifest["encoded_by"] == [f"tokenizers {version('tokenizers')}"]
        monkeypatch.setattr(ReferenceEncoder, "name", "another 1.0")
        other = prepare(config, tmp_path / "other")
        assert other.manifest["encoded_by"] == ["another 1.0"]
        assert other.digest == store.digest

    def test_the_fast_encoder_gives_the_same_bytes(self, corpus, tmp_path):
        pytest.importorskip("fastokens")
        config, _ = corpus
        stores = []
        for backend in ("tokenizers", "fastokens"):
            chosen = config.model_copy(update={"tokenizer": TokenizerConfig(vocab_size=400, backend=backend)})
            stores.append(prepare(chosen, tmp_path / backend))
            assert [name.split()[0] for name in stores[-1].manifest["encoded_by"]] == [backend]
        assert stores[0].digest == stores[1].digest

    @settings(
        derandomize=True, max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=12),
        cuts=st.lists(st.integers(0, 12), max_size=3).map(sorted),
        formats=st.permutations(["jsonl", "jsonl.zst", "parquet", "jsonl.gz"]),
        lengths=st.sets(st.integers(1, 40), min_size=2, max_size=4),
    )
    def test_any_unicode_decodes_back(self, tokenizer_folder, tmp_path_factory, texts, cuts, formats, lengths):
        """Documents come back in order, and rows are exactly their tokens, however files, shards and rows cut them."""
        folder = tmp_path_factory.mktemp("corpus")
        for number, (begin, end) in enumerate(itertools.pairwise([0, *cuts, len(texts)])):
            write_texts(folder / f"{number}.{formats[number]}", texts[begin:end])
        (folder / "held.txt").write_text("a text that no example will have")
        config = CorpusConfig(
            inputs=[{"path": str(folder / "[0-9].*"), "domain": "d"}],
            held_out_inputs=[{"path": str(folder / "held.txt"), "domain": "d"}],
            tokenizer={"path": str(tokenizer_folder)},
        )
        packed = prepare(config, folder / "out")
        padded = TokenStore.open(folder / "out", packing="pad")
        assert decoded(packed, "d") == decoded(padded, "d") == texts
        documents = [[*ids.tolist(), packed.eos_token_id] for ids in packed.documents("d")]
        stream = [token for ids in documents for token in ids]
        assert packed.num_tokens("d") == len(stream)
        for length in lengths:
            windows = [stream[at : at + length] for at in range(0, len(stream) - length + 1, length)]
            assert rows_of(packed, "d", length) == windows
            pieces = [ids[at : at + length] for ids in documents for at in range(0, len(ids), length)]
            assert rows_of(padded, "d", length) == pieces


class TestHeldOut:
    """By inputs of their own, or by folders."""

    def test_training_documents_equal_to_held_out_ones_are_dropped(self, write_jsonl, tmp_path, caplog):
        train = write_jsonl("train.jsonl", [{"text": text} for text in ("a", "b", "a", "c")])
        held = write_jsonl("held.jsonl", [{"text": text} for text in ("a", "x")])
        config = CorpusConfig(
            inputs=[{"path": str(train), "domain": "d"}],
            held_out_inputs=[{"path": str(held), "domain": "d"}],
            tokenizer={"vocab_size": 260},
        )
        store = prepare(config, tmp_path / "out")
        assert decoded(store, "d") == ["b", "c"]
        assert decoded(store, "d", "held_out") == ["a", "x"]
        assert store.manifest["inputs"][1]["skipped"] == {"training document equal to a held-out one": 2}
        assert "train.jsonl: left out 2 x training document equal to a held-out one" in caplog.text

    def test_duplicates_stay_on_one_side(self, write_jsonl, tmp_path):
        path = write_jsonl("a.jsonl", records_of("d") * 2)
        config = CorpusConfig(inputs=[{"path": str(path), "domain": "d"}], held_out_fraction=0.3)
        store = prepare(config, tmp_path / "out")
        train, held_out = decoded(store, "d"), decoded(store, "d", "held_out")
        assert len(train) + len(held_out) == 120
        assert not set(train) & set(held_out)

    @pytest.fixture
    def one_sided(self, write_jsonl, tmp_path):
        """Prepares a corpus whose domain B has documents on one side only."""

        def prepare_without(missing):
            sides = {"train": [{"text": "a", "set": "A"}], "held_out": [{"text": "b", "set": "A"}]}
            for side, records in sides.items():
                if side != missing:
                    records.append({"text": "only here", "set": "B"})
            paths = {side: write_jsonl(f"{side}.jsonl", records) for side, records in sides.items()}
            config = CorpusConfig(
                inputs=[{"path": str(paths["train"]), "domain_field": "set"}],
                held_out_inputs=[{"path": str(paths["held_out"]), "domain_field": "set"}],
            )
            return prepare(config, tmp_path / "out")

        return prepare_without

    def test_domain_that_is_held_out_only(self, one_sided):
        with pytest.raises(InputError, match=r"domain 'B' has no training document \(1 held out\)"):
            one_sided("train")

    def test_domain_without_held_out_text_is_warned_of(self, one_sided, caplog):
        """It may be left out of an experiment, which is cheaper than to prepare everything again."""
        store = one_sided("held_out")
        assert "domain 'B' has no held-out document (1 for training), so it cannot be evaluated" in caplog.text
        assert (store.num_documents("B"), store.num_documents("B", split="held_out")) == (1, 0)
        assert store.num_tokens("B", split="held_out") == 0


class TestTokenIds:
    """Tokenised datasets, stored as they are."""

    @pytest.fixture
    def upstream(self, tmp_path):
        for split, rows in (("train", [[5, 6, 0], [7, 8]]), ("validation", [[9, 0]])):
            dataset = datasets.Dataset.from_dict({"input_ids": rows, "domain_id": [3] * len(rows)})
            dataset.save_to_disk(tmp_path / "top" / split / "ArXiv" / "00")
        return tmp_path / "top"

    def test_chunks_keep_every_token_and_get_none(self, upstream, tokenizer_folder, tmp_path):
        config = CorpusConfig(inputs=[{"path": str(upstream)}], tokenizer={"path": str(tokenizer_folder)})
        store = prepare(config, tmp_path / "out")
        assert store.names == ("ArXiv",)
        assert store.num_tokens("ArXiv") == 5
        assert store.rows("ArXiv", np.array([0]), 5).tokens.tolist() == [[5, 6, 0, 7, 8]]
        assert [ids.tolist() for ids in store.documents("ArXiv", split="held_out")] == [[9]]
        text = AutoTokenizer.from_pretrained(tokenizer_folder).decode([5, 6, 7, 8])
        assert store.num_bytes("ArXiv") == len(text.encode())

    def test_documents_end_with_eos(self, upstream, tokenizer_folder, tmp_path):
        inputs = [{"path": str(upstream), "ids_rows": "documents"}]
        store = prepare(CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)}), tmp_path / "out")
        assert store.rows("ArXiv", np.array([0]), 6).tokens.tolist() == [[5, 6, 0, 7, 8, 0]]

    def test_tokenizer_is_required(self, upstream, tmp_path):
        with pytest.raises(InputError, match=r"no text to train a tokenizer on.*set corpus\.tokenizer\.path"):
            prepare(CorpusConfig(inputs=[{"path": str(upstream)}]), tmp_path / "out")

    @pytest.mark.parametrize("token", [-1, 70_000])
    def test_ids_outside_the_vocabulary(self, tokenizer_folder, tmp_path, token):
        datasets.Dataset.from_dict({"input_ids": [[1, token]]}).save_to_disk(tmp_path / "top" / "a")
        config = CorpusConfig(inputs=[{"path": str(tmp_path / "top")}], tokenizer={"path": str(tokenizer_folder)})
        with pytest.raises(InputError, match=rf"token ids from .*{token}.* domain 'a', but the vocabulary has 277"):
            prepare(config, tmp_path / "out")


class TestFromDatasets:
    """The way in for those who have datasets in memory."""

    def domains(self) -> dict[str, datasets.Dataset]:
        return {name: datasets.Dataset.from_dict({"body": texts_of(name, 50)}) for name in ("b", "a")}

    def test_one_domain_per_dataset(self, tokenizer_folder, tmp_path):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        store = from_datasets(self.domains(), tokenizer, tmp_path / "s", text_column="body", held_out_fraction=0.2)
        assert store.names == ("a", "b")
        assert decoded(store, "a") == [text for text in texts_of("a", 50) if not is_held_out(text, 0.2)]

    def test_other_data_is_not_mistaken_for_the_store(self, tokenizer_folder, tmp_path):
        from_datasets(self.domains(), str(tokenizer_folder), tmp_path / "s", text_column="body")
        from_datasets(self.domains(), str(tokenizer_folder), tmp_path / "s", text_column="body")
        other = {"a": datasets.Dataset.from_dict({"body": ["x"]})}
        with pytest.raises(InputError, match="holds a corpus prepared with other settings"):
            from_datasets(other, str(tokenizer_folder), tmp_path / "s", text_column="body")

    def test_nothing_given(self, tokenizer_folder, tmp_path):
        with pytest.raises(InputError, match="no dataset given"):
            from_datasets({}, str(tokenizer_folder), tmp_path / "s")


class TestRefused:
    """What prepare does not do, and says why."""

    def test_empty_corpus(self, write_jsonl, tmp_path, tokenizer_folder):
        inputs = [{"path": str(write_jsonl("a.jsonl", [])), "domain": "d"}]
        with pytest.raises(InputError, match="no text to train a tokenizer on"):
            prepare(CorpusConfig(inputs=inputs), tmp_path / "out")
        config = CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)})
        with pytest.raises(InputError, match=r"no document in .*a\.jsonl; is it the right input"):
            prepare(config, tmp_path / "out2")

    def test_names_that_differ_in_case(self, write_jsonl, tmp_path, tokenizer_folder):
        path = write_jsonl("a.jsonl", records_of("Wiki", "wiki"))
        inputs = [{"path": str(path), "domain_field": "set"}]
        config = CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)})
        with pytest.raises(InputError, match="domains 'Wiki' and 'wiki' differ only in case"):
            prepare(config, tmp_path / "out")

    def test_names_are_compared_before_all_files_are_read(self, file_by_file, write_jsonl, tmp_path, tokenizer_folder):
        write_jsonl("in/0.jsonl", records_of("Wiki"))
        write_jsonl("in/1.jsonl", records_of("WIKI"))
        (tmp_path / "in" / "2.jsonl").write_text("never reached")
        inputs = [{"path": str(tmp_path / "in"), "domain_field": "set"}]
        with pytest.raises(InputError, match="domains 'WIKI' and 'Wiki' differ only in case"):
            prepare(CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)}), tmp_path / "out")

    def test_hostile_names_stay_inside(self, write_jsonl, tmp_path, tokenizer_folder):
        names = ("../../etc", "a/b", "CON", "..", ".hidden", "日本")
        path = write_jsonl("a.jsonl", records_of(*names))
        inputs = [{"path": str(path), "domain_field": "set"}]
        config = CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)}, held_out_fraction=0.3)
        assert prepare(config, tmp_path / "deep" / "out").names == tuple(sorted(names))
        assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "deep"}
        assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out"}

    def test_another_corpus_in_the_folder(self, corpus):
        config, folder = corpus
        prepare(config, folder)
        with pytest.raises(InputError, match=r"prepared with other settings; use another folder, or delete"):
            prepare(config.model_copy(update={"held_out_fraction": 0.3}), folder)

    def test_bad_record_stops_or_is_counted(self, corpus, tmp_path, caplog):
        config, folder = corpus
        with (tmp_path / "in" / "0.jsonl").open("a") as file:
            file.write("{bad\n")
        with pytest.raises(InputError, match=r"0\.jsonl:61: not valid JSON"):
            prepare(config, folder)
        store = prepare(config.model_copy(update={"on_bad_record": "skip"}), tmp_path / "out2")
        assert store.manifest["inputs"][0]["skipped"] == {"malformed JSON": 1}
        assert "0.jsonl: left out 1 x malformed JSON" in caplog.text

    def test_what_was_left_out_of_many_files_is_added_up(self, write_jsonl, tmp_path, tokenizer_folder, caplog):
        for number in range(25):
            write_jsonl(f"in/{number:02d}.jsonl", [{"text": f"{number} {i}"} for i in range(9)] + [{}] * number)
        inputs = [{"path": str(tmp_path / "in"), "domain": "d"}]
        config = CorpusConfig(
            inputs=inputs, tokenizer={"path": str(tokenizer_folder)}, held_out_fraction=0.2, on_bad_record="skip"
        )
        store = prepare(config, tmp_path / "out")
        assert [record.message.partition("in/")[2] for record in caplog.records[:-1]] == [
            f"{number:02d}.jsonl: left out {number} x missing field" for number in range(1, 21)
        ]
        assert caplog.records[-1].message == (
            "4 more input files: left out 90 x missing field; manifest.json has the counts of each"
        )
        assert [sum(item["skipped"].values()) for item in store.manifest["inputs"]] == list(range(25))
        last = show(store).splitlines()[-1]
        assert last == "left out of 24 of 25 input files (--json tells which): 300 x missing field"

    def test_names_of_inputs_in_the_manifest_are_those_of_messages_without_folders(
        self, write_jsonl, tmp_path, tokenizer_folder
    ):
        for number in range(8):
            (tmp_path / "texts" / "d").mkdir(parents=True, exist_ok=True)
            (tmp_path / "texts" / "d" / f"{number}.txt").write_text(f"text {number}")
        write_jsonl("hub/owner/train.jsonl", [{"text": f"line {number}"} for number in range(9)])
        config = CorpusConfig(
            inputs=[
                {"path": str(tmp_path / "texts")},
                {"dataset": str(tmp_path / "hub" / "owner"), "domain": "h"},
                {
                    "path": f"file://{write_jsonl('r.jsonl', [{'text': str(number)} for number in range(9)])}",
                    "domain": "r",
                },
            ],
            tokenizer={"path": str(tokenizer_folder)},
            held_out_fraction=0.4,
        )
        names = [item["name"] for item in prepare(config, tmp_path / "out").manifest["inputs"]]
        assert names == ["d", f"dataset {tmp_path}/hub/owner, file 1 of 1", "r.jsonl"]


class TestAgain:
    """Idempotence."""

    def test_finished_store_opens_without_its_inputs(self, corpus, tmp_path):
        config, folder = corpus
        digest = prepare(config, folder).digest
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        for path in (tmp_path / "in").iterdir():
            path.unlink()
        assert prepare(config, folder).digest == digest
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    def test_packing_is_only_a_way_to_read(self, corpus):
        config, folder = corpus
        packed = prepare(config, folder)
        padded = prepare(config.model_copy(update={"packing": "pad"}), folder)
        assert padded.num_sequences("Wiki", 16) > packed.num_sequences("Wiki", 16)


def test_preparing_imports_neither_torch_nor_transformers(corpus, tmp_path):
    config, folder = corpus
    datasets.Dataset.from_dict({"text": texts_of("Saved", 60)}).save_to_disk(tmp_path / "saved")
    script = (
        "import sys\nfrom doremi.corpus import prepare, show\nfrom doremi.corpus.config import CorpusConfig\n"
        "print(show(prepare(CorpusConfig.model_validate_json(sys.argv[1]), sys.argv[2])))\n"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    inputs = [*config.model_dump()["inputs"], {"path": str(tmp_path / "saved"), "domain": "Saved"}]
    content = json.dumps({**config.model_dump(), "inputs": inputs})
    subprocess.run([sys.executable, "-c", script, content, str(folder)], check=True, env={**os.environ})
