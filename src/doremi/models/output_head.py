"""How a causal LM turns its last hidden states into logits, found out by probing the model itself.

Losses can be had without all the logits only if this is known: a linear layer, then at most a scale (Granite, Cohere,
Falcon-H1) and a soft cap (Gemma 2), and nothing else between the backbone and the logits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from doremi.models.configurations import text_part

PROBE_TOKENS = 4
PROBE_LOGIT = 80.0  # well beyond every soft cap in use (15 to 50); a fresh model's own logits would not reach any
SCALE_WORDS = ("logit", "lm_head", "multiplier")  # logits_scaling, logit_scale, lm_head_multiplier, ...


@dataclass(frozen=True)
class OutputHead:
    """``logits = cap(scale · (hidden Wᵀ + b))``, ``cap(x) = softcap · tanh(x / softcap)`` where there is a soft cap."""

    scale: float = 1.0
    softcap: float | None = None

    def apply_(self, raw: torch.Tensor) -> torch.Tensor:
        """The logits, in place of the linear layer's output."""
        if self.scale != 1.0:
            raw.mul_(self.scale)
        if self.softcap is not None:
            raw.div_(self.softcap).tanh_().mul_(self.softcap)
        return raw


def backbone(model: PreTrainedModel) -> nn.Module | None:
    """The module that turns tokens into hidden states: the only child beside the output layer, or None.

    Of a child that only wraps another (OPT), the inner one, which is what such models call.
    """
    others = [child for child in model.children() if child is not model.get_output_embeddings()]
    while len(others) == 1 and len(inner := list(others[0].children())) == 1:
        others = inner
    return others[0] if len(others) == 1 else None


def resolve(model: PreTrainedModel) -> OutputHead | None:
    """The output head of ``model``, or None where its logits are more than an `OutputHead` can express.

    One forward pass over four tokens, without gradient, in which the backbone does not run: this is as cheap for a
    large model, and needs no attention kernel to work on the device where the model is now.
    """
    linear, body = model.get_output_embeddings(), backbone(model)
    # Further children or parameters may act in training only (dropout), or do nothing yet (a learned scale of 1).
    if type(linear) is not nn.Linear or body is None or next(model.parameters(recurse=False), None) is not None:
        return None
    seen = _observe(model, body, linear)
    return None if seen is None else _explain(seen, config=model.config, biased=linear.bias is not None)


class _BackboneOutput(tuple):
    """What stands in for a backbone's output of whatever class: the hidden states, and None for all else."""

    def __getattr__(self, name: str) -> torch.Tensor | None:
        return self[0] if name == "last_hidden_state" else None


class _Observation(NamedTuple):
    """What a forward pass of the whole model showed."""

    hidden: torch.Tensor  # [1, 4, D], what the backbone was made to answer
    linear_input: torch.Tensor  # [1, 4, D], what the model made of that
    raw: torch.Tensor  # [1, 4, V], what the linear layer was made to answer
    logits: torch.Tensor  # [1, 4, V], what the model made of that


def _observe(model: PreTrainedModel, body: nn.Module, linear: nn.Linear) -> _Observation | None:
    """The model's forward with a backbone that answers small numbers, and a linear layer that answers large ones.

    None if either is called in another way than once, or the backbone gets any tensor but the model's tokens.
    """
    device, dtype = linear.weight.device, torch.promote_types(linear.weight.dtype, torch.float32)  # for all as strict
    tokens = torch.zeros(1, PROBE_TOKENS, dtype=torch.int64, device=device)
    hidden, raw = (
        torch.linspace(-limit, limit, PROBE_TOKENS * size, device=device, dtype=dtype).view(1, PROBE_TOKENS, size)
        for limit, size in ((1.0, linear.in_features), (PROBE_LOGIT, linear.out_features))
    )
    to_body, to_linear = [], []

    def body_forward(*args: Any, **kwargs: Any) -> _BackboneOutput:
        to_body.append([value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)])
        return _BackboneOutput([hidden.clone()])

    def linear_forward(value: torch.Tensor) -> torch.Tensor:
        to_linear.append(value)
        return raw.clone()

    devices = [device] if device.type == "cuda" else []
    stand_ins = _forward(body, body_forward), _forward(linear, linear_forward)
    with torch.no_grad(), torch.random.fork_rng(devices), stand_ins[0], stand_ins[1]:
        try:
            logits = model.forward(input_ids=tokens, use_cache=False).logits  # without the hooks of others
        except (AttributeError, IndexError, TypeError, ValueError):  # it makes more of its backbone's output
            return None
    as_usual = len(to_body) == len(to_linear) == 1 and len(to_body[0]) == 1 and to_body[0][0] is tokens
    return _Observation(hidden, to_linear[0], raw, logits) if as_usual else None


@contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Another forward for a while."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def _explain(seen: _Observation, *, config: PretrainedConfig, biased: bool) -> OutputHead | None:
    """The head that leads from hidden states to logits, out of those that the configuration speaks of."""
    scales, caps = _scales(config), [None, *_numbers(config, "cap")]
    # Before the linear layer (MiniCPM 3) a scale does the same as after it, unless there is a bias.
    before = next(
        (scale for scale in scales[: 1 if biased else None] if _same(seen.hidden * scale, seen.linear_input)), None
    )
    heads = (OutputHead(scale, cap) for cap, scale in itertools.product(caps, scales))
    after = next((head for head in heads if _same(head.apply_(seen.raw.clone()), seen.logits)), None)
    return None if before is None or after is None else OutputHead(before * after.scale, after.softcap)


def _same(expected: torch.Tensor, actual: torch.Tensor) -> bool:
    tolerance = 8 * torch.finfo(actual.dtype).eps
    return expected.shape == actual.shape and torch.allclose(
        expected.to(actual.dtype), actual, rtol=tolerance, atol=tolerance
    )


def _scales(config: PretrainedConfig) -> list[float]:
    """1, then each likely number as factor and divisor: Granite and HyperCLOVA X mean opposites by one name."""
    return [1.0, *itertools.chain.from_iterable((value, 1 / value) for value in _numbers(config, *SCALE_WORDS))]


def _numbers(config: PretrainedConfig, *words: str) -> list[float]:
    """The positive numbers in the configuration whose name has one of the words, properties (MiniCPM 3) included."""
    text_config = text_part(config)
    values = [getattr(text_config, key) for key in dir(text_config) if any(word in key for word in words)]
    return [float(value) for value in values if isinstance(value, int | float) and 0 < value < math.inf]
