"""Models: the presets of this package, and any Hugging Face causal LM."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from doremi.errors import InputError, first_line
from doremi.models import pretrained
from doremi.models.configurations import configure, load_config, text_part

if TYPE_CHECKING:
    from doremi.models.config import ModelConfig

__all__ = ["build", "configure", "trained_reference"]

logger = logging.getLogger(__name__)

TEXT_PARAMETERS = {r"^(model\.)?language_model\.(model\.)?": "model."}  # names in a whole model: in its text model


def build(config: ModelConfig, hf_config: PretrainedConfig, *, seed: int, attention: str | None) -> PreTrainedModel:
    """The model with fresh float32 parameters drawn from ``seed``, or the pretrained ones. Leaves global RNGs alone.

    Args:
        config: of the recipe; with ``init: pretrained`` its path is loaded.
        hf_config: from `configure`.
        seed: of the fresh parameters.
        attention: implementation; None: transformers' choice.

    Raises:
        InputError: this machine or this model type lacks the attention implementation, or the model has not as many
            rows of embeddings and outputs as the vocabulary that the configuration asks for.
    """
    try:
        model = _build(config, hf_config, seed=seed, attention=attention)
    except (ImportError, ValueError) as error:  # a package that is not there; values that do not go together
        raise InputError(f"models: {hf_config.model_type}: {first_line(error)}") from None
    check_vocabulary(model, vocab_size=text_part(hf_config).vocab_size, exact=config.init == "random")
    return model


def _build(config: ModelConfig, hf_config: PretrainedConfig, *, seed: int, attention: str | None) -> PreTrainedModel:
    if config.init == "pretrained":
        return _pretrained(config, hf_config, attention)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(hf_config, attn_implementation=attention, dtype=torch.float32)
    embeddings = model.get_input_embeddings()
    if getattr(embeddings, "padding_idx", None) == text_part(hf_config).eos_token_id:
        embeddings.padding_idx = None  # EOS is a token like others, also where the type wants a number for padding
    return model


def _pretrained(config: ModelConfig, hf_config: PretrainedConfig, attention: str | None) -> PreTrainedModel:
    assert config.path is not None
    return pretrained.load(config.path, hf_config=hf_config, attention=attention, renamed=renamed(config, hf_config))


def renamed(config: ModelConfig, hf_config: PretrainedConfig) -> dict[str, str] | None:
    """How tensors at the path are called in the text model, where that alone is built of a model of text and more."""
    return TEXT_PARAMETERS if hf_config.model_type != load_config(config).model_type else None


def check_vocabulary(model: PreTrainedModel, *, vocab_size: int, exact: bool = True) -> None:
    """Whether a model, on whatever device, has the rows of embeddings and outputs that it was built for.

    Raises:
        InputError: it has others, or with ``exact`` false fewer.
    """
    layers = {"inputs": model.get_input_embeddings(), "outputs": model.get_output_embeddings()}
    for what, layer in layers.items():
        weight = getattr(layer, "weight", None)
        if weight is None or weight.dim() != 2:
            continue
        more_is_wrong = exact and what == "outputs"  # of inputs, some types keep rows for images
        if weight.shape[0] < vocab_size or (more_is_wrong and weight.shape[0] != vocab_size):
            raise InputError(
                f"models: {model.config.model_type} was built with {weight.shape[0]} rows of {what} where {vocab_size} "
                "were asked for: its vocabulary is set by another value of its configuration. Set that with overrides, "
                "or take a model of another type"
            )


def trained_reference(config: ModelConfig, *, tokenizer_digest: str) -> Path:
    """The folder of a model that serves as the reference as it is; downloaded, where the path is a hub id.

    Raises:
        InputError: nothing loadable at the path, no tokenizer with it, or another one than the corpus'.
    """
    from doremi.corpus.tokenizing import tokenizers

    assert config.path is not None
    folder = Path(config.path)
    if not folder.is_dir():
        load_config(config)  # explains what is wrong with a path that is no model
        folder = pretrained.locate(config.path)
    found = tokenizers.load(str(folder)).entry.digest
    if found != tokenizer_digest:
        raise InputError(
            f"models.reference: the tokenizer in {config.path} (digest {found}) is not the corpus' "
            f"({tokenizer_digest}); losses of different tokens cannot be compared. Prepare the corpus "
            f"with it: corpus.tokenizer.path: {config.path}"
        )
    return folder
