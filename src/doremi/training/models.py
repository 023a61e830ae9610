"""Models: the presets of this package, and any Hugging Face causal LM."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from doremi.errors import InputError
from doremi.training import pretrained
from doremi.training.presets import PRESETS

if TYPE_CHECKING:
    from doremi.recipe import ModelConfig

logger = logging.getLogger(__name__)


def configure(config: ModelConfig, *, vocab_size: int, eos_token_id: int, sequence_length: int) -> PretrainedConfig:
    """The Hugging Face configuration of a model of the recipe, fitted to the tokenizer and the sequence length.

    Raises:
        InputError: no such preset, nothing loadable at the path, an override that the configuration does not have,
            or pretrained parameters that belong to another vocabulary or are too short for the sequences.
    """
    hf_config = _load_config(config)
    for key, value in config.overrides.items():
        if not hasattr(hf_config, key):
            raise InputError(f"models: {hf_config.model_type} configurations have no value {key!r} to override")
        setattr(hf_config, key, value)
    if config.init != "random":
        if hf_config.vocab_size < vocab_size:
            raise InputError(
                f"models: {config.path} has a vocabulary of {hf_config.vocab_size}, the corpus was tokenised with one "
                f"of {vocab_size}; set corpus.tokenizer.path to that model's tokenizer"
            )
    else:
        hf_config.vocab_size = vocab_size
        hf_config.bos_token_id = hf_config.eos_token_id = eos_token_id
        hf_config.pad_token_id = None
        if getattr(hf_config, "max_position_embeddings", sequence_length) < sequence_length:
            hf_config.max_position_embeddings = sequence_length
    return hf_config


def build(config: ModelConfig, hf_config: PretrainedConfig, *, seed: int, attention: str) -> PreTrainedModel:
    """The model with fresh float32 parameters drawn from ``seed``, or the pretrained ones. Leaves global RNGs alone.

    Raises:
        InputError: what `pretrained.load` refuses.
    """
    if config.init == "pretrained":
        assert config.path is not None
        return pretrained.load(config.path, hf_config=hf_config, attention=attention)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(hf_config, attn_implementation=attention, dtype=torch.float32)


def trained_reference(config: ModelConfig, *, tokenizer_digest: str) -> Path:
    """The folder of a model that serves as the reference as it is; downloaded, where the path is a hub id.

    Raises:
        InputError: nothing loadable at the path, no tokenizer with it, or another one than the corpus'.
    """
    from doremi.corpus import tokenizers

    assert config.path is not None
    folder = Path(config.path)
    if not folder.is_dir():
        _load_config(config)  # explains what is wrong with a path that is no model
        folder = pretrained.locate(config.path)
    found = tokenizers.load(str(folder)).entry.digest
    if found != tokenizer_digest:
        raise InputError(
            f"models.reference: the tokenizer in {config.path} (digest {found}) is not the corpus' "
            f"({tokenizer_digest}); losses of different tokens cannot be compared. Prepare the corpus "
            f"with it: corpus.tokenizer.path: {config.path}"
        )
    return folder


def resolve_attention(name: str, *, precision: str) -> str:
    """``auto`` is FlashAttention 2 where it can be had, on a GPU in half precision, else PyTorch's own kernels (sdpa).

    Where flash-attn is not installed but ``kernels`` is, transformers takes a build of it from the hub.
    """
    if name != "auto":
        return name
    from transformers.utils import is_flash_attn_2_available, is_kernels_available

    if precision == "float32" or not torch.cuda.is_available():  # FlashAttention has no float32
        return "sdpa"
    return "flash_attention_2" if is_flash_attn_2_available() or is_kernels_available() else "sdpa"


@contextmanager
def float32_attention(model: PreTrainedModel) -> Iterator[None]:
    """For an evaluation in float32, which FlashAttention cannot do: the same model with PyTorch's own kernels."""
    implementation = model.config._attn_implementation
    if "flash" not in (implementation or ""):
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(implementation)


def disable_dropout(model: torch.nn.Module) -> list[str]:
    """Set every dropout probability of a model to 0, in its modules and in its configuration.

    Returns:
        Names of the configuration values and modules that were not 0 before.
    """
    changed = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd) and module.p > 0:
            module.p = 0.0
            changed.append(name)
        elif isinstance(getattr(module, "attention_dropout", None), float) and module.attention_dropout > 0:
            module.attention_dropout = 0.0
            changed.append(f"{name}.attention_dropout")
    config = getattr(model, "config", None)
    for key, value in vars(config).items() if config is not None else ():
        if ("dropout" in key or key.endswith("pdrop")) and isinstance(value, float) and value > 0:
            setattr(config, key, 0.0)
            changed.append(f"config.{key}")
    return changed


def _load_config(config: ModelConfig) -> PretrainedConfig:
    if config.preset is not None:
        if config.preset not in PRESETS:
            raise InputError(f"models: no preset {config.preset!r}; there are {', '.join(PRESETS)}")
        values = dict(PRESETS[config.preset])
        return AutoConfig.for_model(values.pop("model_type"), **values)
    assert config.path is not None
    try:
        return AutoConfig.from_pretrained(config.path)
    except (OSError, ValueError) as error:
        what = (
            "is not a Hugging Face model" if Path(config.path).exists() else "is neither a path nor a model on the hub"
        )
        raise InputError(f"models: {config.path} {what}: {str(error).splitlines()[0]}") from None
