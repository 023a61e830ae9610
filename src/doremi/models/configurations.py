"""The Hugging Face configuration of a model of the recipe: loaded, reduced to its text model, fitted to the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from doremi.errors import InputError, first_line
from doremi.models import attention
from doremi.models.presets import PRESETS

if TYPE_CHECKING:
    from doremi.models.config import ModelConfig

VOCABULARY = ("vocab_size", "decoder_vocab_size", "unpadded_vocab_size", "vocab_size_per_layer_input")
LENGTH = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "max_target_positions",
    "seq_length",
    "context_length",
    "model_max_length",
)


def configure(config: ModelConfig, *, vocab_size: int, eos_token_id: int, sequence_length: int) -> PretrainedConfig:
    """The Hugging Face configuration of a model of the recipe, fitted to the tokenizer and the sequence length.

    Of a model of text and other things, a fresh model is built from the text part alone; overrides may name values of
    the whole or of the text part.

    Raises:
        InputError: no such preset, nothing loadable at the path, no causal LM, an override or attention implementation
            that the model type does not have, or pretrained parameters that belong to another vocabulary or are too
            short for the sequences.
    """
    whole = load_config(config)
    text = text_part(whole)
    _override(config.overrides, whole, text)
    _check_depth(text)
    hf_config = _to_build(whole, text)
    attention.check(config.attn_implementation, hf_config)
    if config.init == "random":
        fit(text, vocab_size=vocab_size, eos_token_id=eos_token_id, sequence_length=sequence_length)
        if "pad_token_id" in config.overrides:
            text.pad_token_id = config.overrides["pad_token_id"]
        return hf_config
    _check_pretrained(config, text, vocab_size=vocab_size, sequence_length=sequence_length)
    return hf_config


def load_config(config: ModelConfig) -> PretrainedConfig:
    """The configuration as it is, of a preset or at a path.

    Raises:
        InputError: no such preset, or nothing loadable at the path.
    """
    if config.preset is not None:
        if config.preset not in PRESETS:
            raise InputError(
                f"models: no preset {config.preset!r}; there are {', '.join(PRESETS)}. For a model in a folder or on "
                f"the hub write its path: {{path: {config.preset}}}"
            )
        values = dict(PRESETS[config.preset])
        return AutoConfig.for_model(values.pop("model_type"), **values)
    assert config.path is not None
    try:
        return AutoConfig.from_pretrained(config.path)
    except (OSError, ValueError, StrictDataclassError) as error:
        what = (
            "is not a Hugging Face model" if Path(config.path).exists() else "is neither a path nor a model on the hub"
        )
        raise InputError(f"models: {config.path} {what}: {first_line(error)}") from None


def parts(config: PretrainedConfig, *, prefix: str = "") -> Iterator[tuple[str, PretrainedConfig]]:
    """The configuration and those within it, each with its dotted name."""
    yield prefix, config
    for key, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            yield from parts(value, prefix=f"{prefix}.{key}".lstrip("."))


def text_part(whole: PretrainedConfig) -> PretrainedConfig:
    """The configuration of the text model: the whole, or one within it."""
    try:
        return whole.get_text_config()
    except ValueError:  # several: a text encoder beside the decoder
        return whole.get_text_config(decoder=True)


def _to_build(whole: PretrainedConfig, text: PretrainedConfig) -> PretrainedConfig:
    """What a fresh model is built from: the text part, where there is a causal LM of its type, else the whole.

    Raises:
        InputError: transformers has no causal LM for either.
    """
    if type(text) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return text
    if type(whole) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        why = "it is an encoder-decoder" if whole.is_encoder_decoder else "transformers has none of this type"
        raise InputError(
            f"models: {whole.model_type} is no causal language model: {why}. Use a decoder, as llama, gpt2 or qwen3"
        )
    built_from = MODEL_FOR_CAUSAL_LM_MAPPING[type(whole)].config_class
    if built_from not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(
            f"models: {whole.model_type}: transformers builds its text model from {built_from.__name__}, and could not "
            "load it again once it was saved. Use a model of another type"
        )
    return whole


def _override(overrides: dict[str, Any], whole: PretrainedConfig, text: PretrainedConfig) -> None:
    for key, value in overrides.items():
        owners = [part for part in {id(part): part for part in (whole, text)}.values() if hasattr(part, key)]
        if not owners:
            raise InputError(f"models: {whole.model_type} configurations have no value {key!r} to override")
        for part in owners:
            if isinstance(getattr(part, key), PretrainedConfig):
                raise InputError(f"models: overrides: {key} is a configuration of its own; name the values within it")
            _set(part, key, value)


def _check_depth(text: PretrainedConfig) -> None:
    """A model of no layers is built and trained without any error."""
    layers = getattr(text, "num_hidden_layers", 1)
    if type(layers) is int and layers < 1:
        raise InputError(f"models: {text.model_type} with {layers} layers (num_hidden_layers); at least 1 is needed")


def _set(config: PretrainedConfig, key: str, value: Any) -> None:
    try:
        setattr(config, key, value)
    except (StrictDataclassError, TypeError, ValueError, AttributeError) as error:
        problem = first_line(error.__cause__ or error)
        raise InputError(f"models: {config.model_type} configurations take no {key} of {value!r}: {problem}") from None


def fit(config: PretrainedConfig, *, vocab_size: int, eos_token_id: int, sequence_length: int) -> None:
    """Give a configuration whose parameters will be fresh the corpus' vocabulary and room for the sequences.

    Parts of it that had the same vocabulary follow: BLT's patcher, encoder and decoder read the same tokens.
    """
    before = getattr(config, "vocab_size", None)
    for _, part in parts(config):
        for name in VOCABULARY:
            if hasattr(part, name) and (part is config or getattr(part, name) == before):
                setattr(part, name, vocab_size)
    config.bos_token_id = config.eos_token_id = eos_token_id
    _set_no_padding(config, eos_token_id)
    for name, length in _lengths(config).items():
        if length < sequence_length:
            setattr(config, name, sequence_length)


def _set_no_padding(config: PretrainedConfig, eos_token_id: int) -> None:
    """No token is padding: an embedding that belongs to one would never be trained.

    Where the type needs a number, it is EOS, whose embedding `models.build` then lets be trained.
    """
    try:
        config.pad_token_id = None
    except StrictDataclassError:
        config.pad_token_id = eos_token_id


def _check_pretrained(config: ModelConfig, text: PretrainedConfig, *, vocab_size: int, sequence_length: int) -> None:
    if text.vocab_size < vocab_size:
        raise InputError(
            f"models: {config.path} has a vocabulary of {text.vocab_size}, the corpus was tokenised with one "
            f"of {vocab_size}; set corpus.tokenizer.path to that model's tokenizer"
        )
    shortest = min(_lengths(text).items(), key=lambda item: item[1], default=None)
    if shortest is not None and shortest[1] < sequence_length:
        name, length = shortest
        raise InputError(
            f"models: {config.path} was made for {length} positions ({name}), and training.sequence_length is "
            f"{sequence_length}; shorten it. Where positions are rotary, overrides: {{{name}: {sequence_length}}} "
            "makes it go on beyond what it was trained for"
        )


def num_positions(config: PretrainedConfig) -> int | None:
    """How long a sequence of the text model may be; None where nothing bounds it."""
    return min(_lengths(text_part(config)).values(), default=None)


def _lengths(config: PretrainedConfig) -> dict[str, int]:
    """The values that bound the length of a sequence; 0 and less mean that nothing does."""
    values = {name: vars(config).get(name) for name in LENGTH}
    return {name: value for name, value in values.items() if type(value) is int and value > 0}
