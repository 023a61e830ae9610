"""Training, loading and saving a tokenizer; documents that try to look like special tokens."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tokenizers as hf_tokenizers
from tokenizers import AddedToken, models, pre_tokenizers
from transformers import AutoTokenizer

from doremi.corpus.tokenizing import tokenizers
from doremi.errors import InputError, MissingFileError

TEXTS = ["the cat sat on the mat", "äöü 日本語 🙂\x00", "a\r\n\tb  c"]


def test_training_is_deterministic_and_byte_level():
    first = tokenizers.train(TEXTS * 3, vocab_size=280)
    again = tokenizers.train(iter(TEXTS * 3), vocab_size=280)
    assert first.entry == again.entry
    assert first.entry.vocab_size == 280
    assert first.entry.eos_token_id == 0
    unseen = "\u0416 never seen \U0001f9a7"
    [ids] = first.encode([unseen]).split()
    assert first._backend.decode(ids.tolist(), skip_special_tokens=False) == unseen


def test_smallest_vocabulary_is_all_bytes_and_eos():
    assert tokenizers.train(TEXTS, vocab_size=257).entry.vocab_size == 257


def test_saved_folder_opens_with_transformers(tokenizer_folder):
    ours = tokenizers.load(str(tokenizer_folder))
    theirs = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert theirs.eos_token_id == ours.entry.eos_token_id
    assert len(theirs) == ours.entry.vocab_size
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode([text]).flat.tolist()


def test_saving_and_loading_changes_nothing(tokenizer_folder, tmp_path):
    first = tokenizers.load(str(tokenizer_folder))
    first.save(tmp_path / "copy")
    assert tokenizers.load(str(tmp_path / "copy")).entry == first.entry
    assert tokenizers.load(str(tmp_path / "copy" / "tokenizer.json")).entry == first.entry


def test_spelled_out_special_tokens_are_text(tokenizer_folder):
    tokenizer = tokenizers.load(str(tokenizer_folder))
    text = "a<|endoftext|>b <|endoftext|>"
    [ids] = tokenizer.encode([text]).split()
    assert tokenizer.entry.eos_token_id not in ids
    assert tokenizer._backend.decode(ids.tolist(), skip_special_tokens=False) == text


def test_nothing_is_added_truncated_or_padded(tokenizer_folder, tmp_path):
    backend = hf_tokenizers.Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    backend.enable_truncation(3)
    backend.enable_padding()
    backend.post_processor = hf_tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = tokenizers.load(str(tmp_path / "tokenizer.json"))
    plain = tokenizers.load(str(tokenizer_folder))
    assert tokenizer.encode(TEXTS).flat.tolist() == plain.encode(TEXTS).flat.tolist()


class TestEosToken:
    """Where it is named."""

    def test_as_an_object_in_the_config(self, tokenizer_folder, tmp_path):
        folder = shutil.copytree(tokenizer_folder, tmp_path / "t")
        config = {"eos_token": {"content": "<|endoftext|>", "special": True}, "model_max_length": 77}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        tokenizer = tokenizers.load(str(folder))
        assert tokenizer.entry.eos_token == "<|endoftext|>"
        tokenizer.save(tmp_path / "saved")
        assert AutoTokenizer.from_pretrained(tmp_path / "saved").model_max_length == 77

    def test_by_convention_where_nothing_names_it(self, tokenizer_folder, tmp_path):
        shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path)
        assert tokenizers.load(str(tmp_path)).entry.eos_token == "<|endoftext|>"

    def test_by_the_recipe(self, tokenizer_folder, tmp_path):
        backend = hf_tokenizers.Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
        backend.add_special_tokens([AddedToken("<end>", special=True)])
        folder = shutil.copytree(tokenizer_folder, tmp_path / "t")
        backend.save(str(folder / "tokenizer.json"))
        tokenizer = tokenizers.load(str(folder), eos_token="<end>")
        assert tokenizer.entry.eos_token_id == backend.token_to_id("<end>")
        assert tokenizer.entry.digest != tokenizers.load(str(folder)).entry.digest
        tokenizer.save(tmp_path / "saved")
        assert AutoTokenizer.from_pretrained(tmp_path / "saved").eos_token == "<end>"
        assert tokenizers.load(str(tmp_path / "saved")).entry == tokenizer.entry

    def test_unknown(self, tmp_path):
        backend = hf_tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
        backend.save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(InputError, match=r"no EOS token is known.*set corpus\.tokenizer\.eos_token"):
            tokenizers.load(str(tmp_path))

    def test_not_in_the_vocabulary(self, tokenizer_folder):
        with pytest.raises(InputError, match=r"'</nope>' is not in its vocabulary"):
            tokenizers.load(str(tokenizer_folder), eos_token="</nope>")

    def test_that_text_could_forge(self, tmp_path):
        backend = hf_tokenizers.Tokenizer(models.WordLevel({"a": 0, "</s>": 1, "[UNK]": 2}, unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        backend.save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(InputError, match=r"spells out '</s>' would be cut in two"):
            tokenizers.load(str(tmp_path))


class TestLoading:
    """What is not a tokenizer."""

    @pytest.mark.parametrize("path", ["/nowhere/at/all", "./nowhere", "../no-such-folder", "a/b/c"])
    def test_missing(self, path):
        with pytest.raises(MissingFileError, match=r"no such tokenizer folder or file; check corpus\.tokenizer\.path"):
            tokenizers.load(path)

    def test_hub_out_of_reach(self, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(MissingFileError, match=r"someone/no-such-tokenizer: .*could not be had from the Hugging"):
            tokenizers.load("someone/no-such-tokenizer")

    def test_folder_without_tokenizer_json(self, tmp_path):
        with pytest.raises(InputError, match=r"tokenizer\.json: no such file; only fast tokenizers"):
            tokenizers.load(str(tmp_path))

    def test_damaged(self, tmp_path):
        (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
        with pytest.raises(InputError, match=r"tokenizer\.json: not a tokenizer that"):
            tokenizers.load(str(tmp_path))

    def test_wrapping_leaves_the_given_one_alone(self, tokenizer_folder):
        given = AutoTokenizer.from_pretrained(tokenizer_folder)
        assert tokenizers.wrap(given).entry == tokenizers.load(str(tokenizer_folder)).entry
        assert given("<|endoftext|>")["input_ids"] == [0]
        with pytest.raises(InputError, match="int is not a fast tokenizer"):
            tokenizers.wrap(3)


def test_bytes_behind_token_ids(tokenizer_folder):
    tokenizer = tokenizers.load(str(tokenizer_folder))
    for text in TEXTS:
        ids = np.array([*tokenizer.encode([text]).flat, tokenizer.entry.eos_token_id])
        assert tokenizer.count_bytes(ids) == len(text.encode())
