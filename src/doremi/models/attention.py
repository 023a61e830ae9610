"""Which kernel computes attention, and whether a model type has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from doremi.errors import InputError

SUPPORT = {  # implementation: what a model class says of it
    "sdpa": "_supports_sdpa",
    "flex_attention": "_supports_flex_attn",
    "flash_attention_2": "_supports_flash_attn",
    "flash_attention_3": "_supports_flash_attn",
    "flash_attention_4": "_supports_flash_attn",
}


def resolve(name: str, *, precision: str, hf_config: PretrainedConfig | None = None) -> str | None:
    """The implementation for ``name``. ``auto`` is None, transformers' own choice, unless FlashAttention 2 can be had.

    That is on a GPU, in half precision, for a model type that supports it. Where flash-attn is not installed but
    ``kernels`` is, transformers takes a build of it from the hub.

    Args:
        name: of the recipe.
        precision: ``bf16``, ``fp16`` or ``float32``, which FlashAttention does not have.
        hf_config: of the model; None: FlashAttention is not chosen for it.
    """
    if name != "auto":
        return name
    from transformers.utils import is_flash_attn_2_available, is_kernels_available

    if precision == "float32" or not torch.cuda.is_available() or hf_config is None:
        return None
    model_class = _model_class(hf_config)
    # types that name kernels of their own (attention sinks) do not compute the same with another
    if not model_class._supports_flash_attn or getattr(model_class, "_compatible_flash_implementations", None):
        return None
    return "flash_attention_2" if is_flash_attn_2_available() or is_kernels_available() else None


def check(name: str, hf_config: PretrainedConfig) -> None:
    """Whether the model type has an implementation that the recipe names; kernels of the hub are not looked at.

    Raises:
        InputError: it has not, or nothing has that name.
    """
    if name in ("auto", "eager") or "/" in name:
        return
    known = ["auto", "eager", *SUPPORT]
    if name not in SUPPORT:
        raise InputError(f"models: attn_implementation is {name!r}; there are {', '.join(known)}")
    model_class = _model_class(hf_config)
    if not getattr(model_class, SUPPORT[name], False):
        has = [other for other, flag in SUPPORT.items() if getattr(model_class, flag, False)]
        raise InputError(
            f"models: {hf_config.model_type} models have no attn_implementation {name!r}; use auto, or one of "
            f"{', '.join(['eager', *has])}"
        )


@contextmanager
def in_float32(model: PreTrainedModel) -> Iterator[None]:
    """The same model with PyTorch's own kernels, for a float32 forward pass, which FlashAttention cannot do."""
    implementation = model.config._attn_implementation
    if "flash" not in (implementation or ""):
        yield
        return
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    try:
        yield
    finally:
        model.set_attn_implementation(implementation)


def _model_class(hf_config: PretrainedConfig) -> type[PreTrainedModel]:
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(hf_config)]
