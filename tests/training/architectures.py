"""A model of a few thousand parameters of each architecture whose output layer is told apart by something."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from doremi.models.output_head import OutputHead

VOCAB_SIZE = 53
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PLAIN = OutputHead()
ARCHITECTURES: dict[str, tuple[str, dict, OutputHead]] = {
    "llama": ("llama", {}, PLAIN),
    "llama, tied": ("llama", {"tie_word_embeddings": True}, PLAIN),
    "gpt2 (tied)": ("gpt2", {}, PLAIN),
    "gpt_neox": ("gpt_neox", {}, PLAIN),
    "qwen3": ("qwen3", {}, PLAIN),
    "gemma2 (tied, soft cap)": ("gemma2", {"final_logit_softcapping": 5.0}, OutputHead(softcap=5.0)),
    "gemma3": ("gemma3_text", {}, PLAIN),
    "olmo2": ("olmo2", {}, PLAIN),
    "phi (bias)": ("phi", {}, PLAIN),
    "mistral": ("mistral", {}, PLAIN),
    "granite (divided)": ("granite", {"logits_scaling": 0.25}, OutputHead(scale=4.0)),
    "smollm3": ("smollm3", {}, PLAIN),
    "cohere (tied, multiplied)": ("cohere", {"logit_scale": 3.0}, OutputHead(scale=3.0)),
    "minicpm3 (hidden states divided)": (
        "minicpm3",
        {
            "dim_model_base": 32,
            "num_key_value_heads": 2,
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
        },
        OutputHead(scale=2.0),
    ),
    "opt (wrapped backbone)": ("opt", {"ffn_dim": 24, "word_embed_proj_dim": 16}, PLAIN),
    "nanochat (soft cap)": ("nanochat", {"final_logit_softcapping": 4.0}, OutputHead(softcap=4.0)),
}


def build(name, *, dtype=torch.float64, **changes):
    """Large random parameters, biases and norms included, so that soft caps bite and no two tokens look the same."""
    model_type, special, _ = ARCHITECTURES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SIZES | special | changes))
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model.to(dtype)
