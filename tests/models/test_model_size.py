"""Traced FLOPs against PyTorch's own counter, and against those of the formula for plain transformers."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, MixtralConfig, OPTConfig

from doremi.errors import InputError
from doremi.experiment.recipe import parse
from doremi.models import loading
from doremi.models.size import measure, size_of

LENGTH = 512


def of(recipe, run, *, vocab_size):
    length = recipe.training.for_run(run).sequence_length
    return measure(getattr(recipe.models, run), name=run, sequence_length=length, vocab_size=vocab_size)


def build(config, attention="sdpa"):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, attn_implementation=attention)


def count(model, length, *, backward=True):
    """FLOPs of one row of ``length`` tokens."""
    ids = torch.zeros(2, length, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter:
        logits = model(ids).logits
        if backward:
            logits.float().sum().backward()
    return counter.get_total_flops() / 2


def proxy_of(preset):
    recipe = parse({"corpus": {"inputs": [{"path": "x"}]}, "models": {"proxy": preset},
                    "training": {"sequence_length": LENGTH}})  # fmt: skip
    size = of(recipe, "proxy", vocab_size=50277)
    config = loading.configure(recipe.models.proxy, vocab_size=50277, eos_token_id=0, sequence_length=LENGTH)
    model = build(config)
    assert size.num_parameters == model.num_parameters()
    return size, model


@pytest.mark.parametrize("preset", ["70m", "120m", "510m"])
def test_presets(preset):
    size, model = proxy_of(preset)
    assert size.training_flops(LENGTH) == pytest.approx(count(model, LENGTH), rel=0.001)


@pytest.mark.parametrize("length", [LENGTH, 64])
def test_a_forward_pass_is_a_third_of_it_and_attention_is_quadratic(length):
    size, model = proxy_of("70m")
    assert size.forward_flops(length) == pytest.approx(count(model, length, backward=False), rel=0.001)
    assert size.training_flops(length) == 3 * size.forward_flops(length)


SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300,
         "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(num_key_value_heads=2, intermediate_size=160, tie_word_embeddings=False, **SMALL),
        Gemma2Config(num_key_value_heads=2, head_dim=32, intermediate_size=160, **SMALL),
        OPTConfig(word_embed_proj_dim=64, ffn_dim=160, **SMALL),
        GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=300, bos_token_id=0, eos_token_id=0, n_positions=128),
    ],
    ids=lambda config: config.model_type,
)
def test_other_architectures(config):
    """Untied heads, grouped queries, heads wider than the model, learnt positions, transposed matrices."""
    model = build(config, "eager")
    assert size_of(model).training_flops(128) == pytest.approx(count(model, 128), rel=0.001)


def test_widths_and_kinds_of_mlp():
    llama = size_of(build(LlamaConfig(num_key_value_heads=2, intermediate_size=160, **SMALL))).widths
    assert (llama.attention_size, llama.mlp_size, llama.num_mlp_matrices) == (64, 160, 3)
    opt = size_of(build(OPTConfig(word_embed_proj_dim=64, ffn_dim=160, **SMALL))).widths
    assert (opt.mlp_size, opt.num_mlp_matrices) == (160, 2)


def test_a_token_meets_only_the_experts_that_it_is_routed_to():
    settings = {"num_key_value_heads": 4, "intermediate_size": 160, "num_local_experts": 4, **SMALL}
    mixtral = size_of(build(MixtralConfig(num_experts_per_tok=1, **settings)))
    dense = size_of(build(LlamaConfig(num_key_value_heads=4, intermediate_size=160, **SMALL)))
    routers = 2 * 64 * 4
    assert mixtral.forward_flops(16) == dense.forward_flops(16) + 2 * 16 * routers
    assert mixtral.num_parameters == dense.num_parameters + routers + 2 * 3 * 3 * 64 * 160


def test_a_model_that_cannot_be_built_is_refused_in_one_line(tmp_path):
    config = LlamaConfig(num_key_value_heads=2, intermediate_size=160, **SMALL)
    config.save_pretrained(tmp_path)
    overrides = {"hidden_act": "no such function"}
    recipe = parse({"corpus": {"inputs": [{"path": "x"}]}, "models": {"main": {"path": str(tmp_path),
                    "overrides": overrides}}})  # fmt: skip
    with pytest.raises(
        InputError, match=r"models.main: .* cannot be built as a causal model: .*no such function.*Check"
    ):
        of(recipe, "main", vocab_size=300)


def test_a_size_is_measured_once_for_a_configuration_and_a_length():
    recipe = parse({"corpus": {"inputs": [{"path": "x"}]}, "models": {"main": "tiny", "proxy": "tiny"}})
    first = of(recipe, "main", vocab_size=301)
    assert of(recipe, "proxy", vocab_size=301) is first
    assert of(recipe, "proxy", vocab_size=302) is not first
