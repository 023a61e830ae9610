"""Parameters of a recipe's models and the FLOPs that follow from them, without any memory for the models."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from doremi.config import RunName
from doremi.errors import InputError, first_line, shorten
from doremi.models.config import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from doremi.models.widths import Widths

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSize:
    """What FLOPs and memory follow from. FLOPs that cannot be known are NaN here, null in JSON."""

    num_parameters: int
    vocab_size: int
    widths: Widths | None  # None: not a plain transformer, so that its activations are not known
    forward_flops: Callable[[int], float] = field(repr=False)
    """FLOPs of the forward pass of one row of L tokens, as `doremi.models.flops.forward_flops` counts them.

    Attention counts all L² pairs (Kaplan et al. 2020, Table 1; Chowdhery et al. 2022, Appendix B). A kernel that skips
    the future computes half of that, and sliding windows less: what is counted is the work that the model asks for,
    as in a model FLOPs utilisation.
    """

    def training_flops(self, sequence_length: int) -> float:
        """FLOPs of one row, forward and backward: the latter is twice the former. Nothing that is computed again."""
        return 3 * self.forward_flops(sequence_length)


_measured: dict[tuple[str, int], ModelSize] = {}  # by configuration and length; tracing takes a second or more


def measure(config: ModelConfig, *, name: RunName, sequence_length: int, vocab_size: int) -> ModelSize:
    """Sizes of one of the recipe's models, built on torch's meta device.

    Args:
        config: of the model.
        name: in the recipe, for messages.
        sequence_length: of the rows that it is trained on.
        vocab_size: of the corpus' tokenizer.

    Raises:
        InputError: what `models.configure` refuses, or a model that transformers cannot build.
    """
    from doremi.models import flops, loading

    with _refused(config, name):
        hf_config = loading.configure(config, vocab_size=vocab_size, eos_token_id=0, sequence_length=sequence_length)
        key = (json.dumps(hf_config.to_dict(), sort_keys=True, default=str), sequence_length)
        model = None if key in _measured else flops.build(hf_config)
    if model is not None:
        _measured[key] = _size(model, sequence_length=sequence_length)
    return _measured[key]


def size_of(model: PreTrainedModel, *, sequence_length: int = 32) -> ModelSize:
    """Sizes of a causal LM on any device.

    Args:
        model: its configuration is what counts.
        sequence_length: at which it is found out whether this is a plain transformer.
    """
    from doremi.models import flops

    return _size(flops.build(model.config), sequence_length=sequence_length)


@contextmanager
def _refused(config: ModelConfig, name: RunName) -> Iterator[None]:
    """Whatever the code of a model raises while it is built, as one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 the code of any model
        raise InputError(
            f"models.{name}: {config.path or config.preset} cannot be built as a causal model: "
            f"{shorten(first_line(error), 200)}. Check its config.json and models.{name}.overrides, or take another "
            "model"
        ) from None


def _size(model: PreTrainedModel, *, sequence_length: int) -> ModelSize:
    from doremi.models import flops, widths
    from doremi.models.configurations import text_part

    @cache
    def forward_flops(sequence_length: int) -> float:
        try:
            return flops.forward_flops(model, sequence_length)
        except flops.UntraceableError as error:
            _warn_once(model.config.model_type, str(error))
            return math.nan

    known = forward_flops(sequence_length)
    return ModelSize(
        num_parameters=model.num_parameters(),
        vocab_size=text_part(model.config).vocab_size,
        widths=widths.find(model, sequence_length=sequence_length, forward_flops=known),
        forward_flops=forward_flops,
    )


@cache
def _warn_once(model_type: str, reason: str) -> None:
    logger.warning(
        "FLOPs of %s models cannot be counted without computing (%s): they and what follows from them are not known "
        "(null in JSON); nothing else changes",
        model_type,
        reason,
    )
