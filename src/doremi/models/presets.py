"""Named model sizes as Hugging Face configuration values; vocabulary and sequence length are the recipe's."""

from __future__ import annotations

from typing import Any


def _vanilla(*, num_layers: int, num_heads: int, head_size: int, mlp_size: int) -> dict[str, Any]:
    """A "vanilla Transformer" of the paper: GPT-NeoX with sequential residuals and a GELU MLP of two matrices.

    Embeddings are tied, a quarter of each head is rotary, and there is no dropout, as in upstream's models. A gated MLP
    of these widths would have half as many parameters again.
    """
    return {
        "model_type": "gpt_neox",
        "hidden_size": num_heads * head_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "intermediate_size": mlp_size,
        "hidden_act": "gelu",
        "use_parallel_residual": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
        "tie_word_embeddings": True,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "classifier_dropout": 0.0,  # never used, but not 0 by default, which would be reported
    }


# Xie et al. 2023, Table 9. The names count a vocabulary of 256k, for the larger ones only roughly.
_PAPER = {
    "70m": _vanilla(num_layers=3, num_heads=4, head_size=64, mlp_size=1024),
    "150m": _vanilla(num_layers=6, num_heads=8, head_size=64, mlp_size=2048),
    "280m": _vanilla(num_layers=12, num_heads=12, head_size=64, mlp_size=3072),
    "510m": _vanilla(num_layers=12, num_heads=16, head_size=64, mlp_size=8192),
    "760m": _vanilla(num_layers=12, num_heads=20, head_size=64, mlp_size=8192),
    "1b": _vanilla(num_layers=16, num_heads=32, head_size=64, mlp_size=8192),
    "8b": _vanilla(num_layers=32, num_heads=32, head_size=128, mlp_size=24576),
}

PRESETS: dict[str, dict[str, Any]] = {
    # Trains at 30k to 40k tokens/s on two laptop-class cores: made for the demo, not for answers that transfer.
    "tiny": {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 160,
        "tie_word_embeddings": True,
    },
    **_PAPER,
    "120m": _PAPER["280m"],  # upstream's name for the body of the 280M model, which has 124M with a 50k vocabulary
}
