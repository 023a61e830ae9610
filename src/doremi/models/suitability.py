"""Whether a model of the recipe can be trained as it asks, before there is a corpus and before the model is built.

Tried on a copy of a few narrow layers with random parameters, which takes a second and some 100 MB for a model of any
size. The model itself is probed again when it is trained.
"""

from __future__ import annotations

import copy
import json
import logging
from typing import TYPE_CHECKING, Literal

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from doremi.errors import InputError
from doremi.models import configurations, noise, token_loss
from doremi.models.loading import check_vocabulary
from doremi.models.probes import PROBE_LENGTH, Probe
from doremi.models.shrinking import shrunken

if TYPE_CHECKING:
    from doremi.models.config import ModelConfig

logger = logging.getLogger(__name__)

VOCAB_SIZE = 64
MAX_PARAMETERS = 100_000_000
ON_CPU = ("eager", "sdpa")
LEFT_BY_MODELS = ("dtype", "architectures", "use_cache")  # values of a configuration that change no try

_passed: set[tuple[str, str | None, str]] = set()  # configurations that this process has tried


def check(config: ModelConfig, *, sequence_length: int, documents: Literal["joined", "separate"]) -> None:
    """Refuse what is no causal LM, or cannot keep documents apart where it is to.

    Raises:
        InputError: also for what `configure` refuses, and for a model that computes no losses at all.
    """
    fresh = config.model_copy(update={"init": "random"})
    configurations.configure(config, vocab_size=1, eos_token_id=0, sequence_length=sequence_length)
    hf_config = configurations.configure(fresh, vocab_size=VOCAB_SIZE, eos_token_id=0, sequence_length=sequence_length)
    check_config(hf_config, attention=config.attn_implementation, documents=documents)


def check_model(model: PreTrainedModel, *, documents: str) -> None:
    """The same of a model that is there, where `transformers.AutoModelForCausalLM` would build one like it.

    Raises:
        InputError: as `check` does.
    """
    config = model.config
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and MODEL_FOR_CAUSAL_LM_MAPPING[type(config)] is type(model):
        check_config(config, attention=config._attn_implementation, documents=documents)


def check_config(hf_config: PretrainedConfig, *, attention: str | None, documents: str) -> None:
    """The same of a configuration that `transformers.AutoModelForCausalLM` builds a model from.

    Raises:
        InputError: as `check` does.
    """
    hf_config = copy.deepcopy(hf_config)
    _fit_to_probe(configurations.text_part(hf_config))
    noise.disable_in(hf_config)
    implementation = _kernel(hf_config, attention)
    key = (identity(hf_config), implementation, documents)
    if key not in _passed:  # the three models of a recipe are mostly the same
        _check(hf_config, implementation, documents)
        _passed.add(key)


def _kernel(hf_config: PretrainedConfig, attention: str | None) -> str | None:
    """The implementation to try; None: what the type has by default on the CPU, also where it is named."""
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(hf_config)]
    default = "sdpa" if model_class._supports_sdpa else "eager"
    return attention if attention in ON_CPU and attention != default else None


def identity(hf_config: PretrainedConfig) -> str:
    """What distinguishes two configurations to a try: not what a model or its training leaves in its own."""
    values = json.loads(hf_config.to_json_string(use_diff=False))
    return json.dumps({key: value for key, value in values.items() if key not in LEFT_BY_MODELS}, sort_keys=True)


def _fit_to_probe(text: PretrainedConfig) -> None:
    padding = text.pad_token_id
    configurations.fit(text, vocab_size=VOCAB_SIZE, eos_token_id=0, sequence_length=PROBE_LENGTH)
    if padding is not None:  # of the recipe, where the type needs one
        text.pad_token_id = padding % VOCAB_SIZE


def _check(hf_config: PretrainedConfig, implementation: str | None, documents: str) -> None:
    probe = _find_probe(hf_config, implementation)
    if probe is None:
        logger.info("%s: no small model of this configuration could be tried", hf_config.model_type)
        return
    check_vocabulary(probe.model, vocab_size=VOCAB_SIZE)
    probe.check(documents=documents)


def _find_probe(hf_config: PretrainedConfig, implementation: str | None) -> Probe | None:
    """A probe of the smallest copy that computes losses; None where none of those that are small enough does.

    Raises:
        InputError: a copy of the full width fails.
    """
    for small in shrunken(hf_config):
        model = _build(small.config, implementation)
        if model is None:
            continue
        probe = Probe(model, vocab_size=VOCAB_SIZE)
        try:
            probe.check_forward()
        except InputError:
            if not small.is_narrow:
                raise
            continue
        return probe
    return None


def _build(hf_config: PretrainedConfig, implementation: str | None) -> PreTrainedModel | None:
    """The small model, or None where it is not small enough or sizes do not go together."""
    try:
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(hf_config, attn_implementation=implementation)
        if empty.num_parameters() > MAX_PARAMETERS:
            return None
        return _random_model(hf_config, implementation)
    except Exception as error:  # noqa: BLE001, it fails in as many ways as there are types of models
        logger.debug("%s cannot be built so small: %s", hf_config.model_type, error)
        return None


def _random_model(hf_config: PretrainedConfig, implementation: str | None) -> PreTrainedModel:
    """All parameters well away from what they begin with: layers that begin as 0 would hide what they see."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            hf_config, attn_implementation=implementation, dtype=torch.float32
        ).eval()
        for parameter in model.parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
            parameter += scale * torch.randn_like(parameter)
    token_loss.install(model)
    return model
