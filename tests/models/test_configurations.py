"""The configuration of a model of the recipe: its text model, the corpus' vocabulary, room for the sequences."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, PretrainedConfig

from doremi.errors import InputError
from doremi.models import attention, configurations, loading
from doremi.models.config import ModelConfig
from doremi.models.token_loss import token_nats
from tests.conformance import zoo

NESTED = ("llama4", "qwen3_5", "gemma3", "gemma3n", "gemma4", "gemma4_unified", "got_ocr2", "fuyu")
SIZED = {"vocab_size": 97, "eos_token_id": 0, "sequence_length": 16}


def configured(folder, name, *, init="random", overrides=None, attn_implementation="auto", **sizes):
    path = str(zoo.write(name, folder / name))
    config = ModelConfig(path=path, init=init, overrides=overrides or {}, attn_implementation=attn_implementation)
    return config, loading.configure(config, **SIZED | sizes)


def build(folder, name, **settings):
    config, hf_config = configured(folder, name, **settings)
    return loading.build(config, hf_config, seed=0, attention=None)


def nats(model, *, vocab_size, length):
    tokens = torch.randint(vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
    tokens[0, 0] = vocab_size - 1
    with torch.no_grad():
        return token_nats(model.eval(), {"input_ids": tokens, "labels": tokens})


@pytest.mark.parametrize("vocab_size", [97, 401])  # the tiny configurations have 300
@pytest.mark.parametrize("name", NESTED)
def test_nested_configurations_give_a_text_model_of_the_vocabulary(tmp_path, name, vocab_size):
    model = build(tmp_path, name, vocab_size=vocab_size, sequence_length=80)
    assert model.get_output_embeddings().weight.shape[0] == vocab_size
    assert model.get_input_embeddings().weight.shape[0] == vocab_size
    assert not [key for key, _ in model.named_parameters() if "vision" in key or "audio" in key]
    assert nats(model, vocab_size=vocab_size, length=80).isfinite().all()
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    assert all(table.num_embeddings >= vocab_size for table in tables)  # those of each layer too (gemma3n, gemma4)


def test_overrides_reach_the_text_configuration(tmp_path):
    model = build(tmp_path, "gemma3", overrides={"rms_norm_eps": 0.25, "mm_tokens_per_image": 4})
    assert model.config.rms_norm_eps == 0.25
    with pytest.raises(InputError, match="gemma3 configurations have no value 'hiden_size'"):
        build(tmp_path, "gemma3", overrides={"hiden_size": 8})
    with pytest.raises(InputError, match="vision_config is a configuration of its own"):
        build(tmp_path, "gemma3", overrides={"vision_config": {}})
    with pytest.raises(InputError, match="llama configurations take no vocab_size of 'many'"):
        build(tmp_path, "llama", overrides={"vocab_size": "many"})


def test_pretrained_parameters_of_a_text_model_within_a_larger_one(tmp_path):
    whole = zoo.model("gemma3").eval()
    whole.save_pretrained(tmp_path)
    config = ModelConfig(path=str(tmp_path), init="pretrained")
    text = loading.build(config, loading.configure(config, **SIZED), seed=0, attention=None).eval()
    assert type(text).__name__ == "Gemma3ForCausalLM"
    assert sum(p.numel() for p in text.parameters()) < sum(p.numel() for p in whole.parameters())
    tokens = torch.arange(20, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(text(tokens).logits, whole(tokens).logits, rtol=0, atol=0)
    with pytest.raises(InputError, match="vocabulary of 300, the corpus was tokenised with one of 301"):
        loading.configure(config, **SIZED | {"vocab_size": 301})


def test_a_model_with_other_rows_than_were_asked_for():
    model = zoo.model("llama")
    loading.check_vocabulary(model, vocab_size=300)
    loading.check_vocabulary(model, vocab_size=299, exact=False)
    with pytest.raises(InputError, match="llama was built with 300 rows of outputs where 299 were asked for"):
        loading.check_vocabulary(model, vocab_size=299)
    with pytest.raises(InputError, match="300 rows of inputs where 301"):
        loading.check_vocabulary(model, vocab_size=301, exact=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mllama", "could not load it again once it was saved"),
        ("emu3", "could not load it again once it was saved"),
    ],
)
def test_types_without_a_causal_lm(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        configured(tmp_path, name)


@pytest.mark.parametrize("name", ["t5", "clip_vision_model"])
def test_models_that_are_no_language_models(tmp_path, name):
    AutoConfig.for_model(name).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"{name} is no causal language model"):
        loading.configure(ModelConfig(path=str(tmp_path)), **SIZED)


@pytest.mark.parametrize("name", ["gpt2", "opt", "mpt", "marian", "bart", "ctrl", "whisper", "xlnet", "dbrx"])
def test_there_is_room_for_the_sequences(tmp_path, name):
    length = zoo.MAX_LENGTH + 37
    model = build(tmp_path, name, sequence_length=length)
    assert nats(model, vocab_size=97, length=length).shape == (1, length - 1)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PretrainedConfig(max_position_embeddings=64, n_ctx=32, context_length=48), 32),
        (PretrainedConfig(max_position_embeddings=64, n_ctx=0, seq_length=-1, model_max_length=None), 64),
        (PretrainedConfig(n_ctx=0, max_seq_len=-1), None),
        (PretrainedConfig(), None),
        (AutoConfig.for_model("gemma3", text_config={"max_position_embeddings": 512}), 512),
    ],
)
def test_the_smallest_bound_of_the_text_part_is_how_long_a_sequence_may_be(config, expected):
    assert configurations.num_positions(config) == expected


@pytest.mark.parametrize(
    "lengths", [{"max_position_embeddings": 10, "n_ctx": 99}, {"max_seq_len": 10, "seq_length": 0}]
)
def test_what_is_long_enough_and_what_bounds_nothing_stays_as_it_is(lengths):
    config = PretrainedConfig(vocab_size=5, **lengths)
    configurations.fit(config, vocab_size=7, eos_token_id=0, sequence_length=12)
    assert {name: getattr(config, name) for name in lengths} == {
        name: 12 if value == 10 else value for name, value in lengths.items()
    }


@pytest.mark.parametrize(("name", "key"), [("gpt2", "n_positions"), ("mpt", "max_seq_len"), ("llama", "max_position")])
def test_pretrained_models_that_are_too_short(tmp_path, name, key):
    with pytest.raises(InputError, match=rf"was made for 64 positions \({key}.*sequence_length is 65"):
        configured(tmp_path, name, init="pretrained", sequence_length=65)
    configured(tmp_path, name, init="pretrained", sequence_length=64)


def test_eos_is_trained_where_the_type_wants_a_number_for_padding(tmp_path):
    model = build(tmp_path, "modernbert-decoder")
    assert model.config.pad_token_id == model.config.eos_token_id == 0
    embeddings = model.get_input_embeddings()  # by itself: with tied weights the outputs give EOS a gradient as well
    embeddings(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
    assert (embeddings.weight.grad[0] == 4).all()


def test_attention_is_the_choice_of_transformers_unless_it_is_flash(monkeypatch):
    for name in ("gemma2", "gptj", "bloom", "mpt", "mamba", "llama"):
        assert attention.resolve("auto", precision="float32", hf_config=zoo.config(name)) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: True)
    chosen = {
        name: attention.resolve("auto", precision="bf16", hf_config=zoo.config(name))
        for name in ("llama", "gemma2", "gpt_oss", "bloom", "mamba")
    }
    assert chosen == {
        "llama": "flash_attention_2",
        "gemma2": "flash_attention_2",
        "gpt_oss": None,  # its sinks need a kernel of its own
        "bloom": None,
        "mamba": None,
    }
    assert attention.resolve("auto", precision="float32", hf_config=zoo.config("llama")) is None
    assert attention.resolve("sdpa", precision="bf16", hf_config=zoo.config("llama")) == "sdpa"


def test_an_attention_implementation_that_the_type_lacks(tmp_path):
    with pytest.raises(InputError, match="bloom models have no attn_implementation 'sdpa'; use auto, or one of eager"):
        configured(tmp_path, "bloom", attn_implementation="sdpa")
    with pytest.raises(InputError, match="attn_implementation is 'flash'; there are auto, eager, sdpa"):
        configured(tmp_path, "llama", attn_implementation="flash")
    configured(tmp_path, "llama", attn_implementation="sdpa")
    configured(tmp_path, "bloom", attn_implementation="eager")


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss", "gptj", "bloom", "mpt", "mamba", "llama"])
def test_auto_builds_every_type(tmp_path, name):
    assert build(tmp_path, name).config._attn_implementation in ("eager", "sdpa")


@pytest.mark.parametrize("layers", [0, -3])
def test_a_model_of_no_layers_is_refused(layers):
    """transformers builds one, and it trains."""
    config = ModelConfig(preset="tiny", overrides={"num_hidden_layers": layers})
    with pytest.raises(InputError, match=rf"llama with {layers} layers \(num_hidden_layers\); at least 1 is needed"):
        loading.configure(config, vocab_size=97, eos_token_id=0, sequence_length=8)
