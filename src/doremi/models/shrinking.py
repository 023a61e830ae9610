"""A configuration of the same kind of model with a few narrow layers, to try out in a moment what a large one does.

Whether a model sees later tokens, or other documents, depends on its kind: its layers, its masks, its positions. It
does not depend on widths, so a copy of a few megabytes answers for a model of any size.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from transformers import PretrainedConfig

from doremi.models.configurations import parts

MAX_LAYERS = 8  # holds a whole period of every hybrid in use (Jamba's is the longest: attention in one layer of 8)
MAX_EXPERT_WIDTH = 32

LAYERS = re.compile(r"(num|n)_((hidden|encoder|decoder)_)?layers?|(encoder|decoder)_layers|num_blocks")
HEADS = re.compile(r"(\w+_)?(num_(\w+_)?heads|n_heads?|attention_heads|num_query_groups|n_mamba_heads)")
FEWER_HEADS = re.compile(r"(\w+_)?(num_key_value_heads|num_kv_heads|num_key_heads|n_?groups|mamba_ngroups)")
WIDTH = re.compile(
    r"(\w*hidden_size|\w*intermediate_size\w*|\w*ffn_dim|d_model|n_embd|n_inner|d_inner|dff|dim_ff|emb_dim"
    r"|embedding_dim|embedding_size|word_embed_proj_dim|\w+_embedding_size|lru_width|mamba_d_ssm|feed_forward_size)"
)
OF_THE_STREAM = ("hidden_size", "d_model", "n_embd", "emb_dim", "embedding_dim")  # what heads share out
NO_WIDTH = {"hidden_size_per_layer_input", "router_hidden_size"}
CAPPED = {  # what costs time and memory and changes nothing else; chunks shorter than a probe's rows are passed on
    re.compile(r"(mamba_)?chunk_size"): 8,
    re.compile(r"mamba_d_state|(ssm_)?state_size"): 16,
}
EXPERTS = re.compile(r"(num|n)_(\w+_)?experts|moe_num_experts")


class Shrunken(NamedTuple):
    """A smaller copy of a configuration."""

    config: PretrainedConfig
    is_narrow: bool  # widths are others, and may not go together


def shrunken(config: PretrainedConfig) -> Iterator[Shrunken]:
    """Copies of ``config``: few narrow layers, all of them narrow, few of full width, the whole.

    Some may not be configurations that a model can be built from: sizes depend on each other in many ways.
    """
    for narrow, shallow in itertools.product((True, False), repeat=2):
        small = copy.deepcopy(config)
        for _, part in parts(small):
            if shallow:
                _set_depth(part)
            if narrow:
                _divide_widths(part)
                _cap(part)
        yield Shrunken(small, is_narrow=narrow)


def _set_depth(config: PretrainedConfig) -> None:
    depths = _numbers(config, LAYERS)
    lists = _lists_by_layer(config, set(depths.values()))
    for name, depth in depths.items():
        shallow = min(depth, MAX_LAYERS)
        if lists:
            shallow = min(depth, max(_num_until_all_kinds(values[:depth]) for values in lists.values()))
        setattr(config, name, shallow)
        for key, values in lists.items():
            if len(values) == depth:
                setattr(config, key, values[:shallow])


def _lists_by_layer(config: PretrainedConfig, depths: set[int]) -> dict[str, Sequence[Any]]:
    return {
        key: value for key, value in vars(config).items() if isinstance(value, list | tuple) and len(value) in depths
    }


def _num_until_all_kinds(values: Sequence[Any]) -> int:
    """Length of the shortest prefix that has every kind of layer in it, and at least two layers."""
    return max(2, 1 + max(values.index(kind) for kind in values))


def _divide_widths(config: PretrainedConfig) -> None:
    """Divide the number of heads and every width by one factor: what depends on their ratio stays right."""
    heads, widths = _numbers(config, HEADS), _numbers(config, WIDTH)
    fewer = {name: heads.pop(name) for name in list(heads) if FEWER_HEADS.fullmatch(name)}
    fewer |= _numbers(config, FEWER_HEADS)
    factor = _factor([*heads.values(), *(widths[name] for name in OF_THE_STREAM if name in widths)])
    for name, number in (heads | widths).items():
        setattr(config, name, max(1, number // factor))
    for name, number in fewer.items():
        setattr(config, name, max(1, number // factor))
    if _numbers(config, EXPERTS):
        for name in widths:
            if "intermediate" in name or "ffn" in name:
                setattr(config, name, min(getattr(config, name), MAX_EXPERT_WIDTH))


def _cap(config: PretrainedConfig) -> None:
    for pattern, most in CAPPED.items():
        for name, number in _numbers(config, pattern).items():
            setattr(config, name, min(number, most))


def _factor(numbers: list[int]) -> int:
    """The largest one that divides them all, with two heads left unless their number is a prime."""
    common = math.gcd(*numbers)
    least = min(numbers, default=1)
    return max((n for n in range(1, common) if common % n == 0 and n <= least // 2), default=common) or 1


def _numbers(config: PretrainedConfig, pattern: re.Pattern[str]) -> dict[str, int]:
    return {
        key: value
        for key, value in vars(config).items()
        if pattern.fullmatch(key) and key not in NO_WIDTH and type(value) is int and value > 0
    }
