"""Any causal LM on a corpus: its own tokenizer or the corpus', the same text either way."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, PretrainedConfig

from doremi import files
from doremi.cli import main
from doremi.corpus import TokenStore, prepare
from doremi.corpus.config import CorpusConfig
from doremi.corpus.tokenizing import tokenizers
from doremi.errors import InputError
from doremi.evaluation import checkpoints, perplexity
from tests.conformance import zoo
from tests.end_to_end.conftest import doremi

TEXTS = {
    "prose": ["Grüße aus dem Garten — 庭から.", "the river walked slowly home", "a stone in the evening light"],
    "code": ["def f(x):\n    return x + 1\n", "for i in range(10): print(i)", "while True:\n\tpass"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for part in ("train", "held"):
        with (folder / f"{part}.jsonl").open("w") as file:
            for name, texts in TEXTS.items():
                for text in texts:
                    file.write(json.dumps({"text": f"{text} ({part})", "domain": name}) + "\n")
    config = CorpusConfig.model_validate(
        {
            "inputs": [{"path": str(folder / "train.jsonl"), "domain_field": "domain"}],
            "held_out_inputs": [{"path": str(folder / "held.jsonl"), "domain_field": "domain"}],
            "tokenizer": {"vocab_size": 280},
        }
    )
    return prepare(config, folder / "store")


def save_model(folder, tokenizer, *, seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=tokenizer.entry.vocab_size, max_position_embeddings=32, bos_token_id=None,
        eos_token_id=tokenizer.entry.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def same_tokenizer(store, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("same"), tokenizers.load(str(store.tokenizer_path)))


@pytest.fixture(scope="module")
def other_tokenizer(tmp_path_factory):
    texts = [text for of_domain in TEXTS.values() for text in of_domain]
    return save_model(tmp_path_factory.mktemp("other"), tokenizers.train(texts, vocab_size=330))


def direct_nats(model_folder, text):
    """Losses of one text in one window: EOS, then the text."""
    tokenizer = tokenizers.load(model_folder)
    model = LlamaForCausalLM.from_pretrained(model_folder)
    ids = [tokenizer.entry.eos_token_id, *tokenizer.encode([text]).flat.tolist()]
    with torch.no_grad():
        log_probabilities = torch.log_softmax(model(torch.tensor([ids[:-1]])).logits[0].double(), -1)
    return -float(log_probabilities[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].sum()), len(ids) - 1


def test_the_corpus_tokenizer_gives_the_numbers_of_the_runs(store, same_tokenizer):
    found = checkpoints.evaluate(same_tokenizer, store)
    held_out = perplexity.collect(store, store.names, sequence_length=32, max_tokens_per_domain=None)
    model = LlamaForCausalLM.from_pretrained(same_tokenizer)
    expected = perplexity.nats_per_token(model, held_out, batch_size=4)
    assert not found.own_tokenizer
    assert found.sequence_length == 32  # the model's longest
    np.testing.assert_allclose(list(found.nats.values()), expected, rtol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_another_tokenizer_gets_the_same_text(store, other_tokenizer, batch_size):
    found = checkpoints.evaluate(other_tokenizer, store, batch_size=batch_size)
    assert found.own_tokenizer
    for name, texts in TEXTS.items():
        sums = [direct_nats(other_tokenizer, f"{text} (held)") for text in texts]
        nats, tokens = (math.fsum(part) for part in zip(*sums, strict=True))
        num_bytes = sum(len(f"{text} (held)".encode()) for text in texts)
        assert found.num_tokens[name] == tokens
        assert found.nats[name] == pytest.approx(nats / tokens, abs=1e-6)
        assert found.bits_per_byte[name] == pytest.approx(nats / math.log(2) / num_bytes, abs=1e-6)
        assert sorted(found.documents[name].nats) == pytest.approx(sorted(s for s, _ in sums), abs=1e-5)


def test_the_cap_is_in_tokens_of_the_corpus_for_every_model(store, same_tokenizer, other_tokenizer):
    same = checkpoints.evaluate(same_tokenizer, store, max_tokens_per_domain=9)
    other = checkpoints.evaluate(other_tokenizer, store, max_tokens_per_domain=9)
    assert set(same.num_tokens.values()) == {9}
    corpus_tokenizer = tokenizers.load(str(store.tokenizer_path))
    for name in store.names:
        scored = perplexity.capped_documents(store, name, 9)
        text = "".join(corpus_tokenizer.decode(document) for document in scored.values())
        own = tokenizers.load(other_tokenizer)
        assert other.num_tokens[name] == len(own.encode([text]).flat)


def test_under_a_cap_bits_per_byte_are_those_of_the_scored_text(store, same_tokenizer):
    found = checkpoints.evaluate(same_tokenizer, store, max_tokens_per_domain=9)
    tokenizer = tokenizers.load(str(store.tokenizer_path))
    for name in store.names:
        documents = perplexity.capped_documents(store, name, 9).values()
        num_bytes = sum(len(tokenizer.decode(document).encode()) for document in documents)
        nats = found.documents[name].nats.sum()
        assert found.bits_per_byte[name] == pytest.approx(nats / math.log(2) / num_bytes)
        whole = store.num_bytes(name, split="held_out") / perplexity.num_tokens_to_score(store, name)
        assert num_bytes / 9 != pytest.approx(whole, rel=1e-3)  # what it would be without


def test_domains_without_a_reference_weight_count_as_0(store, same_tokenizer):
    found = checkpoints.evaluate(same_tokenizer, store)
    described = found.to_dict({"code": 1.0})
    assert described["reference_mean_nats"] == found.nats["code"]
    assert described["uniform_mean_nats"] == pytest.approx(np.mean(list(found.nats.values())))
    with pytest.raises(
        InputError, match="no domain with held-out text has a reference weight; give weights of 'code', 'prose'"
    ):
        found.to_dict({"other": 1.0})


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many"])
def test_numbers_that_are_none_are_refused(value, capsys):
    with pytest.raises(SystemExit):
        main.main(["perplexity", "model", "--corpus", "x", "--batch-size", value])
    assert f"argument --batch-size: '{value}' is not a whole number of at least 1" in capsys.readouterr().err


def test_the_command_prints_and_writes_the_same_numbers(store, same_tokenizer, other_tokenizer, tmp_path):
    code, stdout, stderr = doremi(
        "perplexity", same_tokenizer, other_tokenizer, "--corpus", store.path, "--json", tmp_path / "out.json"
    )
    assert code == 0, stderr
    first, second = files.read_json(tmp_path / "out.json")["models"]
    assert (first["own_tokenizer"], second["own_tokenizer"]) == (False, True)
    code_nats = first["domains"]["code"]["nats"]
    assert f"{code_nats:.3f}" in stdout
    assert first["domains"]["code"]["perplexity"] == pytest.approx(math.exp(code_nats))
    tokens = {name: store.num_tokens(name) for name in store.names}
    mean = sum(first["domains"][name]["nats"] * tokens[name] for name in tokens) / sum(tokens.values())
    assert first["reference_mean_nats"] == pytest.approx(mean)
    assert f"reference-weighted mean {mean:.3f}" in " ".join(stdout.split())


def test_the_flags_reach_the_evaluation(store, same_tokenizer, tmp_path):
    flags = [
        "--max-tokens",
        "9",
        "--sequence-length",
        "16",
        "--weights",
        "uniform",
        "--json",
        str(tmp_path / "out.json"),
    ]
    assert main.main(["perplexity", same_tokenizer, "--corpus", str(store.path), *flags]) == 0
    (found,) = files.read_json(tmp_path / "out.json")["models"]
    assert found["sequence_length"] == 16
    assert {domain["num_tokens"] for domain in found["domains"].values()} == {9}
    assert found["reference_mean_nats"] == pytest.approx(found["uniform_mean_nats"])


@pytest.mark.parametrize(("longest", "expected"), [(512, 512), (4096, 1024), (None, 1024)])
def test_windows_are_as_long_as_the_model_takes_and_at_most_1024(longest, expected):
    model = SimpleNamespace(config=PretrainedConfig(max_position_embeddings=longest))
    assert checkpoints._length(model, "m", None) == expected
    assert checkpoints._length(model, "m", 300) == 300


def test_windows_of_a_nested_model_are_as_long_as_its_text_part_takes():
    model = SimpleNamespace(config=AutoConfig.for_model("gemma3", text_config={"max_position_embeddings": 512}))
    assert checkpoints._length(model, "m", None) == 512


def test_a_document_begins_after_bos_where_there_is_one(other_tokenizer, tmp_path):
    tokenizer = tokenizers.load(other_tokenizer)
    assert checkpoints._prefix_token(other_tokenizer, tokenizer) == tokenizer.entry.eos_token_id
    tokenizer.save(tmp_path)
    config = files.read_json(tmp_path / "tokenizer_config.json")
    files.write_json(tmp_path / "tokenizer_config.json", config | {"bos_token": "a"})
    (expected,) = tokenizer.encode(["a"]).flat.tolist()
    assert checkpoints._prefix_token(str(tmp_path), tokenizer) == expected != tokenizer.entry.eos_token_id


def test_what_cannot_be_evaluated_is_named(store, same_tokenizer, tmp_path):
    with pytest.raises(InputError, match="sequences of 64 tokens, the model takes at most 32"):
        checkpoints.evaluate(same_tokenizer, store, sequence_length=64)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: not a causal LM that transformers loads"):
        checkpoints.evaluate(str(tmp_path / "empty"), store)


def test_a_corpus_with_nothing_held_out_is_refused(same_tokenizer, store, monkeypatch):
    monkeypatch.setattr(TokenStore, "num_tokens", lambda self, name, split="train": 0)
    monkeypatch.setattr(TokenStore, "num_documents", lambda self, name, split="train": 0)
    with pytest.raises(InputError, match="no held-out text"):
        checkpoints.evaluate(same_tokenizer, store)


def test_an_encoder_has_no_losses_that_count(tmp_path):
    zoo.model("bert").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=rf"{tmp_path}: bert is not causal"):
        checkpoints.load_model(tmp_path)
