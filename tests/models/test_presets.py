"""The presets have the sizes of the paper's Table 9: parameters counted by hand and on torch's meta device."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from doremi.models import loading, noise
from doremi.models.config import ModelConfig
from doremi.models.presets import PRESETS

# layers, heads, size of a head, width, MLP; and parameters in millions with a vocabulary of 256,000
TABLE_9 = {
    "70m": (3, 4, 64, 256, 1024, 67.9),
    "150m": (6, 8, 64, 512, 2048, 150.0),
    "280m": (12, 12, 64, 768, 3072, 281.7),
    "510m": (12, 16, 64, 1024, 8192, 514.0),
    "760m": (12, 20, 64, 1280, 8192, 658.2),
    "1b": (16, 32, 64, 2048, 8192, 1330.0),
    "8b": (32, 32, 128, 4096, 24576, 9640.5),
}


def count_by_hand(layers, width, mlp, vocab_size):
    """Tied embeddings; per layer QKV, output and two MLP matrices, all with biases, and two LayerNorms; a last one."""
    attention = width * 3 * width + 3 * width + width * width + width
    two_matrices = width * mlp + mlp + mlp * width + width
    return vocab_size * width + layers * (attention + two_matrices + 4 * width) + 2 * width


def on_meta_device(preset, vocab_size):
    config = loading.configure(ModelConfig(preset=preset), vocab_size=vocab_size, eos_token_id=0, sequence_length=1024)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("preset", TABLE_9)
def test_sizes(preset):
    layers, heads, head_size, width, mlp, millions = TABLE_9[preset]
    model = on_meta_device(preset, 256_000)
    assert model.num_parameters() == count_by_hand(layers, width, mlp, 256_000)
    assert model.num_parameters() / 1e6 == pytest.approx(millions, abs=0.05)
    config = model.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.hidden_size) == (layers, heads, width)
    assert model.gpt_neox.layers[0].attention.head_size == head_size == width // heads


@pytest.mark.parametrize("preset", ["70m", "150m", "280m", "510m"])
def test_the_smaller_ones_are_within_4_percent_of_their_names(preset):
    assert on_meta_device(preset, 256_000).num_parameters() == pytest.approx(float(preset[:-1]) * 1e6, rel=0.04)


def test_upstreams_120m_is_the_280m_body_with_a_small_vocabulary():
    assert PRESETS["120m"] == PRESETS["280m"]
    assert on_meta_device("120m", 50_277).num_parameters() == 123_668_736


def test_architecture():
    model = on_meta_device("70m", 1000)
    layer = model.gpt_neox.layers[0]
    assert not layer.use_parallel_residual
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert [tuple(p.shape) for p in layer.mlp.parameters() if p.ndim == 2] == [(1024, 256), (256, 1024)]
    assert type(layer.mlp.act).__name__ == "GELUActivation"
    assert model.gpt_neox.rotary_emb.inv_freq.numel() * 2 == 16  # of 64 in a head
    assert noise.disable(model) == []  # there was none


def test_a_preset_computes_with_positions_and_attends_to_the_past_only():
    config = loading.configure(ModelConfig(preset="70m"), vocab_size=50, eos_token_id=0, sequence_length=16)
    model = loading.build(ModelConfig(preset="70m"), config, seed=0, attention="sdpa").eval()
    ids = torch.tensor([[3, 4, 5, 6], [3, 4, 5, 9]])
    with torch.no_grad():
        logits = model(ids).logits
        swapped = model(torch.tensor([[4, 3, 5, 6]])).logits
    torch.testing.assert_close(logits[0, :3], logits[1, :3])
    assert not torch.allclose(logits[0, 3], swapped[0, 3], atol=1e-4)
