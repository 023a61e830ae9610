"""A tiny configuration of every causal model type of transformers: all kinds of its layers, a vocabulary of 300.

Made from the type's default configuration by replacing sizes by name, in nested configurations too. A window or chunk
becomes shorter than the rows of the tests, so that it is at work. `SPECIAL` holds what names do not give.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCAB_SIZE, MAX_LENGTH = 300, 64
ALL_TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

HIDDEN, HEADS, KEY_VALUE_HEADS, HEAD_SIZE, MLP = 32, 4, 2, 8, 48
WINDOW = 6
SIZES: tuple[tuple[int, str], ...] = (
    (VOCAB_SIZE, "vocab_size decoder_vocab_size vocab_size_per_layer_input unpadded_vocab_size"),
    (
        MAX_LENGTH,
        """max_position_embeddings n_positions n_ctx max_seq_len max_target_positions context_length
        model_max_length original_max_position_embeddings max_source_positions""",
    ),
    (
        HIDDEN,
        """hidden_size d_model n_embd emb_dim embedding_dim embedding_size word_embed_proj_dim lru_width
        attention_hidden_size input_embedding_size output_embedding_size backbone_hidden_size input_size
        out_hidden_size adapter_in_dim adapter_out_dim adapter_input_size hidden_size_global linear_conv_dim
        attention_dim ple_embed_dim projector_input_dim projector_output_dim""",
    ),
    (
        HEADS,
        """num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads
        attention_heads num_encoder_attention_heads num_decoder_attention_heads linear_num_heads
        swa_num_attention_heads""",
    ),
    (KEY_VALUE_HEADS, "num_key_value_heads num_kv_heads kv_n_heads swa_num_key_value_heads num_query_groups"),
    (
        HEAD_SIZE,
        """head_dim v_head_dim kv_channels dim_head d_head attention_head_size linear_head_dim swa_head_dim
        linear_key_head_dim linear_value_head_dim index_head_dim d_kv kv_lora_rank global_head_dim""",
    ),
    (
        MLP,
        """intermediate_size n_inner ffn_dim decoder_ffn_dim encoder_ffn_dim dim_ff dff d_inner ffn_hidden_size
        feed_forward_size d_ff intermediate_size_mlp dense_intermediate_size mlp_dim""",
    ),
    (
        24,
        """moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size
        expert_ffn_hidden_size shared_intermediate_size moe_shared_expert_intermediate_size""",
    ),
    (
        WINDOW,
        """sliding_window sliding_window_size window_size attention_window_size local_attention keep_window_size
        attention_chunk_size local_attention_window_len""",
    ),
    (
        8,
        """index_topk chunk_size mamba_n_heads mamba_d_head mamba_num_heads mamba_head_dim mamba_headdim
        n_mamba_heads indexer_budget qk_rope_head_dim qk_nope_head_dim
        mamba_chunk_size ssm_state_size state_size mamba_d_state q_lora_rank o_lora_rank
        time_step_rank mamba_dt_rank router_hidden_size laurel_rank hidden_size_per_layer_input rel_extent hc_lowrank
        local_attn_chunk_length lsh_attn_chunk_length""",
    ),
    (4, "num_experts num_local_experts n_routed_experts moe_num_experts rotary_dim d_rel linear_num_value_heads"),
    (
        2,
        """num_experts_per_tok num_experts_per_token moe_topk moe_top_k moe_k top_k_experts num_hidden_layers n_layer
        n_layers num_layers decoder_layers encoder_layers num_encoder_layers num_decoder_layers num_blocks depth
        index_n_heads linear_num_key_heads zero_expert_num num_global_layers n_group
        num_expert_group n_groups""",
    ),
    (1, "topk_group num_dense_layers first_k_dense_replace"),
    (16, "qk_head_dim attention_head_dim image_size"),
    (2 * HIDDEN, "mamba_d_ssm"),
)
SIZE_OF_NAME = {name: size for size, names in SIZES for name in names.split()}
NUM_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")

# What the default of a type asks for beyond sizes.
BOTH_KINDS = ["sliding_attention", "full_attention"]
SHARING = {  # half of the layers read keys and values of the others, of the same kind
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": BOTH_KINDS * 2,
    "activation_sparsity_pattern": [0.95, 0.0, 0.95, 0.0],
    "intermediate_size": [MLP] * 4,
}
HYBRID_PAIRS = {  # two of them, because hybrid layers share parameters; attention reads two streams
    "layers_block_type": ["linear_attention", "hybrid"] * 2,
    "num_hidden_layers": 4,
    "attention_hidden_size": 2 * HIDDEN,
}
SLIDING_LATENT = {  # sizes of the other kind of layer have arguments of their own
    "swa_num_attention_heads": HEADS,
    "swa_num_key_value_heads": HEADS,
    "swa_q_lora_rank": 8,
    "swa_kv_lora_rank": 8,
    "swa_head_dim": 16,
    "swa_qk_nope_head_dim": 8,
    "swa_v_head_dim": 8,
}
GLOBAL_HEADS = {"global_head_dim": 2 * HEAD_SIZE}
# Types whose default is no valid configuration.
NO_DEFAULT: dict[str, dict[str, Any]] = {
    "gemma4_assistant": {
        "text_config": {
            "model_type": "gemma4_text",
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
            "num_kv_shared_layers": 30,
        }
    },
}
SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 50},
    "cohere_compass_text": {
        "layer_types": BOTH_KINDS,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in BOTH_KINDS},
    },
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},  # the defaults do not compute
    "deepseek_v2": {"first_k_dense_replace": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4}},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "dots3_note": {"text_config": SLIDING_LATENT},
    "dots3_note_text": SLIDING_LATENT,
    "gemma3n_text": SHARING,
    "gemma3n": {"text_config": SHARING},
    "gemma4": {"text_config": GLOBAL_HEADS},
    "gemma4_assistant": {"text_config": {"num_kv_shared_layers": 2}},
    "gemma4_unified_assistant": {"text_config": {"num_kv_shared_layers": 2}},
    "gemma4_text": GLOBAL_HEADS,
    "gemma4_unified": {"text_config": GLOBAL_HEADS},
    "gemma4_unified_text": GLOBAL_HEADS,
    "got_ocr2": {"vision_config": {"output_channels": 8}},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hrm_text": {"num_layers_per_stack": 1, "num_hidden_layers": 8},  # 2 cycles of 3 + 1 runs of a stack
    "hunyuan_v1_dense": {"head_dim": HEAD_SIZE},
    "hunyuan_v1_moe": {"head_dim": HEAD_SIZE, "num_experts": 4, "moe_topk": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "laguna": {"layer_types": BOTH_KINDS, "num_attention_heads_per_layer": [HEADS, HEADS]},
    "lfm2": {"layer_types": ["conv", "full_attention"], "full_attn_idxs": [1], "num_hidden_layers": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "llama4_text": {"moe_layers": [1]},
    "llama4": {"text_config": {"moe_layers": [1]}},
    "mamba2": {"num_heads": 8},
    "mellum": {"layer_types": BOTH_KINDS},
    "minimax_m3_vl_text": {
        "layer_types": ["full_attention", "minimax_m3_sparse"],
        "mlp_layer_types": ["dense", "sparse"],
        "index_block_size": 4,
        "index_topk_blocks": 2,
    },
    "ministral": {"head_dim": HEAD_SIZE},
    "nemotron": {"num_key_value_heads": KEY_VALUE_HEADS},
    "phi4_multimodal": {
        "audio_config": {"ext_pw_out_channel": 8, "depthwise_separable_out_channel": 8, "nemo_conv_channels": 8}
    },
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"is_decoder": True, "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [8, 24]},
    "roc_bert": {"shape_vocab_size": 20, "pronunciation_vocab_size": 20},
    "xmod": {"default_language": "en_XX"},
    "zamba": HYBRID_PAIRS,
    "zamba2": HYBRID_PAIRS,
}
QWEN4_EXP = {  # without an indexer it does not compute
    "eos_token_id": 0,
    "ple_layer_ids": [1],
    "heads_per_ngram": 2,
    "ngram_vocab_size_base": 50,
    "make_ngram_vocab_size_divisible_by": 2,
    "split_ngram_parts": 2,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": HEAD_SIZE,
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
}
SPECIAL |= {"qwen4_exp_text": QWEN4_EXP, "qwen4_exp": {"text_config": QWEN4_EXP}}

UNBUILDABLE = {  # transformers makes no model of text from a configuration of the type; recipes with it are refused
    "gemma4_assistant": "drafts for another model: its layers read the keys and values of that model",
    "gemma4_unified_assistant": "drafts for another model: its layers read the keys and values of that model",
    "musicgen": "a decoder of audio codes, whose class cannot be built from the configuration of the type",
    "musicgen_melody": "a decoder of audio codes, whose class cannot be built from the configuration of the type",
}
TYPES = tuple(name for name in ALL_TYPES if name not in UNBUILDABLE)
DOZEN = (
    "gpt2",
    "gpt_neox",
    "opt",
    "gemma2",
    "gemma3_text",
    "qwen3",
    "mixtral",
    "mamba",
    "qwen3_next",
    "llama4",
    "gpt_oss",
    "deepseek_v3",
)


def config(model_type: str) -> PretrainedConfig:
    """The tiny configuration, as it would be read from the file that `write` makes."""
    return AutoConfig.for_model(model_type, **values(model_type))


@functools.cache
def values(model_type: str) -> dict[str, Any]:
    """What differs from the type's default configuration."""
    with quiet():
        default = AutoConfig.for_model(model_type, **NO_DEFAULT.get(model_type, {}))
    return _merged(_shrunk(default), SPECIAL.get(model_type, {}))


@contextmanager
def quiet() -> Iterator[None]:
    """Without what transformers says of defaults, some of which have token ids beyond their own vocabulary."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def write(model_type: str, folder: Path) -> Path:
    """A folder with the tiny ``config.json``, for the ``path`` of a recipe's model."""
    config(model_type).save_pretrained(folder)
    return folder


def model(model_type: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """With large random parameters, biases and norms included, so that every path matters to the loss."""
    hf_config = AutoConfig.for_model(model_type, **_merged(values(model_type), changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = AutoModelForCausalLM.from_config(hf_config, dtype=dtype)
        disturb(built)
    return built


def disturb(model: torch.nn.Module, *, scale: float = 0.1) -> None:
    """Add noise to all parameters: as they are initialised, many paths add nothing."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))


def _shrunk(config: PretrainedConfig) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            changes[name] = _shrunk(value)
        elif isinstance(value, int) and not isinstance(value, bool) and name in SIZE_OF_NAME:
            size = SIZE_OF_NAME[name]
            changes[name] = size if value and size in (VOCAB_SIZE, MAX_LENGTH) else min(value, size)
        elif isinstance(value, int) and value >= VOCAB_SIZE and name.endswith(("_token_id", "_token_index")):
            changes[name] = 1
    if "kv_lora_rank" in changes:
        changes["num_key_value_heads"] = changes["num_attention_heads"]  # latent attention has a key for every head
    return changes | _layer_kinds(config)


def _layer_kinds(config: PretrainedConfig) -> dict[str, Any]:
    """Of the lists with one entry a layer: the first layer of each kind, and at least two."""
    depth_name = next((name for name in NUM_LAYERS if name in vars(config)), None)
    depth = depth_name and getattr(config, depth_name)
    lists = {
        k: v
        for k, v in vars(config).items()
        if isinstance(v, list | tuple) and len(v) == depth and v != [*range(depth)]
    }
    if not lists or depth < 2:
        return {}
    kinds = [repr(column) for column in zip(*lists.values(), strict=True)]
    kept = sorted({kinds.index(kind) for kind in kinds})
    if len(kept) < 2:
        kept = [0, 1]
    return {name: [entries[index] for index in kept] for name, entries in lists.items()} | {depth_name: len(kept)}


def _merged(values: dict[str, Any], special: dict[str, Any]) -> dict[str, Any]:
    """`values` with `special` over it, nested ones entry by entry."""
    result = dict(values)
    for name, value in special.items():
        nested = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = _merged(result[name], value) if nested else value
    return result
