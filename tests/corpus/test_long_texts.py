"""Ids of a long text are those of the whole, in the memory of its pieces."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers

from doremi.corpus import TokenStore, prepare
from doremi.corpus.config import CorpusConfig
from doremi.corpus.reading.documents import Document
from doremi.corpus.reading.split import TextSample
from doremi.corpus.tokenizing import long_texts
from doremi.corpus.tokenizing import tokenizers as corpus_tokenizers
from doremi.corpus.tokenizing.backends import ReferenceEncoder, open_encoder
from doremi.corpus.tokenizing.long_texts import Divider, IndivisibleTextError, cut_at_spaces, encode_in_pieces
from doremi.errors import InputError

ALPHABETS = [*[(97, 123)] * 6, (48, 58), (32, 64), (0x300, 0x330), (0x4E00, 0x4F00), (0x1F300, 0x1F400), (0xC0, 0x250)]
SPACES = [*[" "] * 4, "  ", "\n", "\n\n", "\t", "", "   ", ". ", ", ", "\r\n", " 123456789012 "]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)


def text_of(num_characters: int, seed: int = 0) -> str:
    """Words of many scripts, combining marks and digits, with white space of all kinds between them."""
    source, parts, total = random.Random(seed), [], 0
    while total < num_characters:
        word = "".join(chr(source.randrange(*source.choice(ALPHABETS))) for _ in range(source.randrange(1, 12)))
        parts.append(word + source.choice(SPACES))
        total += len(parts[-1])
    return "".join(parts)


def bpe(pre_tokenizer, normalizer=None) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|endoftext|>"],
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=16,
    )
    return trained(backend, pre_tokenizer, normalizer, trainer)


def unigram(pre_tokenizer, normalizer=None) -> tokenizers.Tokenizer:
    trainer = trainers.UnigramTrainer(vocab_size=3000, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    return trained(tokenizers.Tokenizer(models.Unigram()), pre_tokenizer, normalizer, trainer)


def word_piece(pre_tokenizer, normalizer=None) -> tokenizers.Tokenizer:
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=["[UNK]"], show_progress=False)
    return trained(tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]")), pre_tokenizer, normalizer, trainer)


def trained(backend, pre_tokenizer, normalizer, trainer) -> tokenizers.Tokenizer:
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.train_from_iterator([text_of(12_000, seed=1)], trainer)
    backend.encode_special_tokens = True
    return backend


DIVISIBLE = {
    "GPT-2": lambda: bpe(BYTES),
    "GPT-2 with a space before": lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "Llama 3": lambda: bpe(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    ),
    "NFC": lambda: bpe(BYTES, normalizers.NFC()),
    "NFKC and lower case": lambda: bpe(BYTES, normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
    "single digits": lambda: bpe(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES])),
    "BERT": lambda: word_piece(pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer()),
    "T5": lambda: unigram(
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]), normalizers.NFKC()
    ),
    "Metaspace": lambda: unigram(pre_tokenizers.Metaspace(prepend_scheme="first")),
}
LLAMA2 = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
ONE_WORD = {
    "Llama 2": lambda: bpe(None, LLAMA2),
    "bytes without words": lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
    "words of five": lambda: bpe(pre_tokenizers.FixedLength(5)),
}


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(long_texts, "PIECE_CHARACTERS", 2_000)
    monkeypatch.setattr(long_texts, "GROUP_CHARACTERS", 5_000)


@pytest.mark.parametrize("name", DIVISIBLE)
def test_ids_are_those_of_the_whole(name, small_pieces):
    backend = DIVISIBLE[name]()
    encode, divider, text = ReferenceEncoder(backend), Divider(backend), text_of(16_000)
    pieces = list(divider.pieces(text))
    assert "".join(pieces) == text
    assert len(pieces) >= 6
    assert max(map(len, pieces)) <= 5_000
    ids = encode_in_pieces(["short", text, "", text[:9_000]], divider, encode).split()
    for got, whole in zip(ids, ["short", text, "", text[:9_000]], strict=True):
        assert got.tolist() == encode([whole]).flat.tolist()


@pytest.mark.parametrize("name", ONE_WORD)
def test_what_sees_no_words_is_never_cut(name, small_pieces, monkeypatch):
    backend = ONE_WORD[name]()
    text = text_of(9_000)
    assert list(Divider(backend).pieces(text)) == [text]
    monkeypatch.setattr(long_texts, "MAX_WORD_CHARACTERS", 8_000)
    with pytest.raises(IndivisibleTextError, match=r"sees one word in 9,\d\d\d characters of text, and at most 8,000"):
        list(Divider(backend).pieces(text))


def test_a_cut_within_a_number_is_none(small_pieces):
    """Digits in threes: where the whole cuts them depends on where the number begins, far away."""
    backend = DIVISIBLE["Llama 3"]()
    text = "x " + "1234567890" * 700 + " y" + " word" * 100
    encode = ReferenceEncoder(backend)
    pieces = list(Divider(backend).pieces(text))
    assert "".join(pieces) == text
    assert np.concatenate([encode([piece]).flat for piece in pieces]).tolist() == encode([text]).flat.tolist()


def test_the_fast_encoder(small_pieces):
    pytest.importorskip("fastokens")
    backend, text = DIVISIBLE["GPT-2"](), text_of(16_000)
    ids = encode_in_pieces([text], Divider(backend), open_encoder(backend, "fastokens"))
    assert ids.flat.tolist() == ReferenceEncoder(backend)([text]).flat.tolist()


def test_pieces_of_a_sample(tokenizer_folder):
    """Each begins with a space or a line end, so that a byte-level BPE counts the words of the whole."""
    text = "".join(f"word{number} " for number in range(3_000)) + "x" * 9_000
    pieces = list(cut_at_spaces(text, 1_000))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 1_000
    begins = [piece[0] for piece in pieces[1:]]
    assert set(begins[:20]) == {" "}
    assert begins.count("x") == 9  # where there is no space it is cut anyway


def test_a_sample_takes_a_long_document_in_pieces(monkeypatch):
    monkeypatch.setattr("doremi.corpus.reading.split.MAX_SAMPLED_CHARACTERS", 1_000)
    text = " ".join(f"w{number}" for number in range(10_000))
    sample = TextSample(20_000)
    sample.add(Document("d", text, 7, len(text)))
    sample.add(Document("d", "short", 8, 5))
    kept = sample.texts()
    assert 15_000 < sum(map(len, kept)) <= 20_000  # before, nothing of a document larger than the sample
    assert all(piece in text or piece == "short" for piece in kept)


class TestDocuments:
    """What the limits are for a corpus."""

    @pytest.fixture
    def prepare_with(self, write_jsonl, tmp_path, tokenizer_folder):
        def run(records, **settings) -> TokenStore:
            path = write_jsonl("in.jsonl", records)
            config = CorpusConfig(
                inputs=[{"path": str(path), "domain": "d"}],
                tokenizer={"path": str(tokenizer_folder)},
                held_out_fraction=0.01,
                **settings,
            )
            return prepare(config, tmp_path / "out")

        return run

    def test_a_long_document_has_the_ids_of_the_whole(self, prepare_with, small_pieces, tokenizer_folder):
        text = text_of(30_000)
        tokenizer = corpus_tokenizers.load(str(tokenizer_folder))
        store = prepare_with([{"text": "a"}, {"text": text}, {"text": "b"}])
        documents = [ids.tolist() for ids in store.documents("d")]
        assert documents[1] == ReferenceEncoder(tokenizer._backend)([text]).flat.tolist()
        assert len(documents) == 3

    @pytest.mark.parametrize("on_bad_record", ["error", "skip"])
    def test_a_word_that_is_too_long_is_a_bad_record(self, prepare_with, small_pieces, monkeypatch, on_bad_record):
        monkeypatch.setattr(long_texts, "MAX_WORD_CHARACTERS", 8_000)
        monkeypatch.setattr("doremi.corpus.tokenizing.tokenizers.MAX_WORD_CHARACTERS", 8_000)
        monkeypatch.setattr("doremi.corpus.reading.documents.CHUNK_BYTES", 8_000)
        records = [{"text": "a b"}, {"text": "x" * 20_000}, {"text": "c d"}]
        if on_bad_record == "error":
            with pytest.raises(InputError, match=r"in\.jsonl:2: this tokenizer sees one word in 20,000 .*; correct"):
                prepare_with(records)
        else:
            store = prepare_with(records, on_bad_record="skip")
            assert store.num_documents("d") == 2
            assert store.manifest["inputs"] == [{"name": "in.jsonl", "skipped": {"too long": 1}}]


PREPARE = """
import pathlib, sys
from doremi.corpus import prepare
from doremi.corpus.config import CorpusConfig
peak = lambda: int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
for config, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    prepare(CorpusConfig.model_validate_json(config), folder)
    print(peak())
"""


def peaks(*preparations: tuple[CorpusConfig, object]) -> list[float]:
    """The highest memory, in MB, of one process after each of several preparations."""
    arguments = [str(part) for config, folder in preparations for part in (config.model_dump_json(), folder)]
    done = subprocess.run([sys.executable, "-c", PREPARE, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_one_long_document_takes_little_more_memory_than_many_short_ones(write_jsonl, tmp_path, tokenizer_folder):
    """2.4 MB as one document and as twenty-four; as one it took a hundred times its size."""
    paragraph = " ".join(f"word{number % 700}" for number in range(14_000))
    texts = [f"{number} {paragraph}" for number in range(24)]
    write_jsonl("short/a.jsonl", [{"text": text} for text in texts])
    write_jsonl("long/a.jsonl", [{"text": "\n".join(texts)}, {"text": "short"}, {"text": "another"}])
    short, long = [
        CorpusConfig(
            inputs=[{"path": str(tmp_path / name), "domain": "d"}],
            tokenizer={"path": str(tokenizer_folder), "backend": "tokenizers"},
            held_out_fraction=0.001,
        )
        for name in ("short", "long")
    ]
    before, after = peaks((short, tmp_path / "out short"), (long, tmp_path / "out long"))
    assert after - before < 100  # 44 seen, 394 in one piece
    assert before < 500


def test_a_line_without_end_is_passed_over_in_bounded_memory(tmp_path, tokenizer_folder, monkeypatch):
    monkeypatch.setattr("doremi.corpus.reading.records.MAX_RECORD_BYTES", 10_000)
    monkeypatch.setattr("doremi.corpus.reading.documents.MAX_RECORD_BYTES", 10_000)
    lines = ['{"text": "first"}', '{"text": "' + "x" * 3_000_000 + '"}', '{"text": "third"}', " " * 20_000]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    config = CorpusConfig(
        inputs=[{"path": str(tmp_path / "in.jsonl"), "domain": "d"}],
        tokenizer={"path": str(tokenizer_folder)},
        held_out_fraction=0.01,
        on_bad_record="skip",
    )
    store = prepare(config, tmp_path / "out")
    assert store.num_documents("d") == 2
    assert store.manifest["inputs"][0]["skipped"] == {"too long": 2}
    with pytest.raises(InputError, match=r"in\.jsonl:2: a line of more than 10,000 bytes, the most that a record may"):
        prepare(config.model_copy(update={"on_bad_record": "error"}), tmp_path / "strict")


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".parquet"])
def test_other_records_that_are_too_long(tmp_path, tokenizer_folder, monkeypatch, suffix):
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr("doremi.corpus.reading.records.MAX_RECORD_BYTES", 10_000)
    monkeypatch.setattr("doremi.corpus.reading.documents.MAX_RECORD_BYTES", 10_000)
    path = tmp_path / "in" / f"a{suffix}"
    path.parent.mkdir()
    if suffix == ".parquet":
        pq.write_table(pa.table({"text": ["first", "x" * 20_000]}), path)
    else:
        data = b"x" * 20_000
        path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    (tmp_path / "in" / "b.txt").write_text("text")
    config = CorpusConfig(
        inputs=[{"path": str(tmp_path / "in"), "domain": "d"}], tokenizer={"path": str(tokenizer_folder)}
    )
    with pytest.raises(InputError, match=r"in/a\..*: a (file|text) of .*10,000.*; correct the record"):
        prepare(config, tmp_path / "out")
