"""The fast encoder is used only where it gives the ids of the reference."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import numpy as np
import pytest
import tokenizers as hf_tokenizers

from doremi.corpus.tokenizing import backends
from doremi.corpus.tokenizing.backends import Ids, ReferenceEncoder, open_encoder
from doremi.errors import InputError

TEXTS = ["the cat", "", "a <|endoftext|> b", "日本語\n\n  x", "the dog sat"]


@pytest.fixture
def backend(tokenizer_folder):
    tokenizer = hf_tokenizers.Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.fixture
def pretend(backend, monkeypatch):
    """Puts a stand-in for fastokens in place: the reference in its clothes, with ids changed where ``differs``."""

    def install(differs=lambda text: False, load_error: str | None = None, fails=lambda text: False) -> list[str]:
        seen: list[str] = []

        class Tokenizer:
            @staticmethod
            def from_json_str(content):
                if load_error is not None:
                    raise ValueError(load_error)
                return Tokenizer()

            def encode_batch_flat(self, texts, *, add_special_tokens, split_special_tokens):
                assert (add_special_tokens, split_special_tokens) == (False, True)
                seen.extend(texts)
                if any(map(fails, texts)):
                    raise ValueError("model error: byte 0x00 has no token in vocabulary")
                flat, lengths = ReferenceEncoder(backend)(texts)
                flat = flat + np.repeat([differs(text) for text in texts], lengths)
                return flat.astype("<u4").tobytes(), np.cumsum([0, *lengths]).astype("<u8").tobytes()

        module = ModuleType("fastokens")
        module.Tokenizer = Tokenizer
        monkeypatch.setitem(sys.modules, "fastokens", module)
        monkeypatch.setattr(backends.metadata, "version", lambda name: f"0.1 of {name}")
        return seen

    return install


def as_lists(ids: Ids) -> list[list[int]]:
    return [array.tolist() for array in ids.split()]


def test_used_where_ids_agree(backend, pretend):
    seen = pretend()
    encode = open_encoder(backend, "auto")
    assert as_lists(encode(TEXTS)) == as_lists(ReferenceEncoder(backend)(TEXTS))
    assert as_lists(encode([])) == []
    assert as_lists(encode(["", ""])) == [[], []]
    assert encode.name == "fastokens 0.1 of fastokens"
    encode(TEXTS)
    assert seen[-len(TEXTS) :] == TEXTS


def test_not_installed_is_no_reason_to_worry(backend, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "fastokens", None)
    assert as_lists(open_encoder(backend, "auto")(TEXTS)) == as_lists(ReferenceEncoder(backend)(TEXTS))
    with pytest.raises(InputError, match=r"corpus\.tokenizer\.backend: fastokens cannot be imported"):
        open_encoder(backend, "fastokens")


def test_falls_back_where_it_cannot_read_the_tokenizer(backend, pretend, caplog):
    pretend(load_error="unsupported model type: Unigram")
    assert as_lists(open_encoder(backend, "auto")(TEXTS)) == as_lists(ReferenceEncoder(backend)(TEXTS))
    assert "fastokens cannot read this tokenizer (unsupported model type: Unigram): encoding with" in caplog.text


@pytest.mark.parametrize("what", ["'LL", "\u200d", "<|endoftext|>"])
def test_falls_back_where_the_fuzz_set_differs(backend, pretend, caplog, what):
    pretend(differs=lambda text: what in text)
    assert as_lists(open_encoder(backend, "auto")(["'LL"])) == as_lists(ReferenceEncoder(backend)(["'LL"]))
    assert "fastokens gives other token ids for" in caplog.text
    with pytest.raises(InputError, match=r"gives other token ids for .*; use auto or tokenizers"):
        open_encoder(backend, "fastokens")


def test_falls_back_where_the_first_documents_differ(backend, pretend, caplog):
    pretend(differs=lambda text: "the dog" in text)
    encode = open_encoder(backend, "auto")
    assert (caplog.text, encode.name) == ("", "fastokens 0.1 of fastokens")
    assert as_lists(encode(TEXTS)) == as_lists(ReferenceEncoder(backend)(TEXTS))
    assert "fastokens gives other token ids for 'the dog sat': encoding with tokenizers instead" in caplog.text
    assert encode.name == f"tokenizers {hf_tokenizers.__version__}"
    assert as_lists(encode(["the dog"])) == as_lists(ReferenceEncoder(backend)(["the dog"]))
    with pytest.raises(InputError, match="gives other token ids for 'the dog sat'"):
        open_encoder(backend, "fastokens")(TEXTS)


@pytest.mark.parametrize("what", ["\x00", "the dog", "after the check"])  # of the fuzz set, the first documents, later
def test_falls_back_where_it_cannot_encode(backend, pretend, caplog, monkeypatch, what):
    monkeypatch.setattr(backends, "CHECKED_BYTES", 60)
    pretend(fails=lambda text: what in text)
    batches = (TEXTS, ["x" * 60], ["before", "after the check"], ["more"])
    encode = open_encoder(backend, "auto")
    for texts in batches:
        assert as_lists(encode(texts)) == as_lists(ReferenceEncoder(backend)(texts))
    assert caplog.text.count("fastokens cannot encode this text (model error: byte 0x00 has no token in voc") == 1

    def encode_all():
        encode = open_encoder(backend, "fastokens")
        for texts in batches:
            encode(texts)

    with pytest.raises(InputError, match=r"cannot encode this text \(model error.*\); use auto or tokenizers"):
        encode_all()


def test_a_real_tokenizer_that_lacks_bytes(backend):
    """As SmolLM2's does; tokenizers leaves them out."""
    pytest.importorskip("fastokens")
    content = json.loads(backend.to_str())
    vocabulary = content["model"]["vocab"]
    kept = [token for token in sorted(vocabulary, key=vocabulary.get) if token not in ("\u0100", "\u00ff")]
    content["model"]["vocab"] = {token: number for number, token in enumerate(kept)}
    lacking = hf_tokenizers.Tokenizer.from_str(json.dumps(content))
    lacking.encode_special_tokens = True
    assert as_lists(open_encoder(lacking, "auto")(["a\x00b"])) == as_lists(ReferenceEncoder(lacking)(["ab"]))
    with pytest.raises(InputError, match="byte 0x00 has no token"):
        open_encoder(lacking, "fastokens")


def test_only_the_first_documents_are_encoded_twice(backend, pretend, monkeypatch):
    monkeypatch.setattr(backends, "CHECKED_BYTES", 20)
    seen = pretend()
    encode = open_encoder(backend, "auto")
    seen.clear()
    encode(["x" * 15, "y" * 15, "z"])
    encode(["after"])
    assert seen == ["x" * 15, "y" * 15, "x" * 15, "y" * 15, "z", "after"]


def test_the_real_one(backend):
    pytest.importorskip("fastokens")
    encode = open_encoder(backend, "fastokens")
    assert as_lists(encode(TEXTS)) == as_lists(ReferenceEncoder(backend)(TEXTS))
