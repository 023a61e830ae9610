"""Before anything is prepared, a small copy of each model shows whether it can be trained as the recipe asks."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from doremi.errors import InputError
from doremi.models import loading, noise, suitability
from doremi.models.config import ModelConfig
from doremi.models.presets import PRESETS
from doremi.models.shrinking import shrunken
from tests.conformance import zoo

NOT_CAUSAL = frozenset(
    """
    bert bert-generation big_bird cpmant electra ernie megatron-bert rembert roc_bert roformer xlnet
    """.split()  # noqa: SIM905, a list would be a line for each
)
WANTS_PADDING = frozenset(
    """
    camembert data2vec-text prophetnet roberta roberta-prelayernorm xlm xlm-roberta xlm-roberta-xl xmod
    """.split()  # noqa: SIM905, a list would be a line for each
)
RANDOM = {"reformer"}
CANNOT_BE_LOADED = {"emu3", "mllama"}
REFUSED = NOT_CAUSAL | WANTS_PADDING | RANDOM | CANNOT_BE_LOADED
LEAKING = frozenset(
    """
    afmoe bailing_hybrid bamba bart bigbird_pegasus biogpt blenderbot blenderbot-small bloom blt deepseek_v4
    falcon falcon_h1 falcon_mamba gpt_oss granitemoehybrid inkling2_text inkling_text jamba kimi_linear lfm2
    lfm2_moe lfm3 mamba mamba2 marian mbart minimax minimax_m3_vl_text mpt mvp nemotron_h olmo_hybrid openai-gpt
    opt pegasus plbart qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_next qwen4_exp qwen4_exp_text
    recurrent_gemma rwkv trocr xglm xlstm zamba zamba2 zaya
    """.split()  # noqa: SIM905, a list would be a line for each
)


def check(folder, name, documents, **overrides):
    config = ModelConfig(path=str(zoo.write(name, folder / name)), overrides=overrides)
    suitability.check(config, sequence_length=12, documents=documents)


@pytest.fixture(autouse=True)
def _nothing_passed_before(monkeypatch):
    monkeypatch.setattr(suitability, "_passed", set())


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.TYPES)
def test_every_type_is_trained_or_refused_as_it_should_be(tmp_path, name):
    if name in REFUSED:
        with pytest.raises(InputError, match=r"not causal|computes no losses|random numbers|load it again"):
            check(tmp_path, name, "joined")
        return
    check(tmp_path, name, "joined")
    if name in LEAKING:
        with pytest.raises(InputError, match="documents: separate is not possible"):
            check(tmp_path, name, "separate")
    else:
        check(tmp_path, name, "separate")


def test_not_too_many_are_refused():
    assert len(REFUSED) <= 23
    assert not LEAKING - set(zoo.TYPES)


@pytest.mark.parametrize("name", ["gpt2", "llama4", "gemma3", "gpt_oss", "deepseek_v3", "mamba", "t5gemma"])
def test_a_few_of_different_kinds(tmp_path, name):
    if name == "t5gemma":
        AutoConfig.for_model(name).save_pretrained(tmp_path)
        with pytest.raises(InputError, match="t5gemma is no causal language model: it is an encoder-decoder"):
            suitability.check(ModelConfig(path=str(tmp_path)), sequence_length=12, documents="joined")
        return
    check(tmp_path, name, "joined")
    if name in LEAKING:
        with pytest.raises(InputError, match=f"separate is not possible with {name}"):
            check(tmp_path, name, "separate")
    else:
        check(tmp_path, name, "separate")


def test_an_encoder_with_the_mask_of_a_decoder(tmp_path):
    with pytest.raises(InputError, match="bert is not causal"):
        check(tmp_path, "bert", "joined")
    check(tmp_path, "bert", "joined", is_decoder=True)
    with pytest.raises(InputError, match=r"roberta computes no losses .* pad_token_id"):
        check(tmp_path, "roberta", "joined", is_decoder=True)
    check(tmp_path, "roberta", "joined", is_decoder=True, pad_token_id=1)


@pytest.mark.parametrize("name", ["gpt2", "mixtral", "mamba2", "bloom", "qwen3_next", "gpt_neo", "jamba"])
def test_default_configurations_shrink_to_a_model_that_computes(name):
    """Full-size defaults of billions of parameters; the first copy has a few millions and runs."""
    config = AutoConfig.for_model(name, vocab_size=64)
    small = next(shrunken(config))
    assert small.is_narrow
    with torch.device("meta"):
        full = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    model = AutoModelForCausalLM.from_config(small.config)
    assert model.num_parameters() < min(60e6, full / 3)
    assert model(input_ids=torch.arange(24)[None], use_cache=False).logits.isfinite().all()


def test_a_large_preset_is_never_built_whole(monkeypatch):
    built = []
    original = suitability._random_model
    monkeypatch.setattr(suitability, "_random_model", lambda *args: built.append(original(*args)) or built[-1])
    suitability.check(ModelConfig(preset="8b"), sequence_length=1024, documents="separate")
    assert [model.num_parameters() < 20e6 for model in built] == [True]
    assert "8b" in PRESETS


def test_the_same_model_is_tried_once(monkeypatch):
    tries = []
    original = suitability._check
    monkeypatch.setattr(suitability, "_check", lambda *args: tries.append(args[2]) or original(*args))
    for documents in ("joined", "joined", "separate"):
        suitability.check(ModelConfig(preset="tiny"), sequence_length=16, documents=documents)
    assert tries == ["joined", "separate"]


@pytest.mark.parametrize("kernel", ["auto", "sdpa", "eager"])
@pytest.mark.parametrize("name", ["gpt2", "gpt_oss"])  # the latter has no sdpa
@pytest.mark.parametrize("init", ["random", "pretrained"])
def test_a_model_is_not_tried_again_once_it_is_built(tmp_path, monkeypatch, init, name, kernel):
    if (name, kernel) == ("gpt_oss", "sdpa"):
        pytest.skip("refused")
    folder = zoo.write(name, tmp_path / name)
    if init == "pretrained":
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    built, original = [], suitability._random_model
    monkeypatch.setattr(suitability, "_random_model", lambda *args: built.append(args) or original(*args))
    config = ModelConfig(path=str(folder), init=init, attn_implementation=kernel)
    suitability.check(config, sequence_length=12, documents="joined")
    hf_config = loading.configure(config, vocab_size=64, eos_token_id=3, sequence_length=12)
    model = loading.build(config, hf_config, seed=1, attention=None if kernel == "auto" else kernel)
    before = len(built)
    model.config.use_cache = False  # as training does
    noise.disable(model)
    suitability.check_model(model, documents="joined")
    assert len(built) == before > 0
