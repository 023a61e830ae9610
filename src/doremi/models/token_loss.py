"""Per-token losses of any Hugging Face causal LM. Label shift and ignore index are handled here and nowhere else.

Head and loss run inside the model's own forward, which `install` lets take ``targets``: the hooks of DDP and FSDP on
the model, and of FSDP on its parts, then see the calls that they see in any other training.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

import torch
from accelerate.utils import extract_model_from_parallel, model_has_dtensor
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from doremi.errors import InputError
from doremi.models import output_head
from doremi.models.configurations import text_part
from doremi.models.linear_nats import linear_nats
from doremi.models.output_head import OutputHead

logger = logging.getLogger(__name__)

IGNORE_INDEX = -100
MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")
LOW_PRECISION = (torch.bfloat16, torch.float16)

Batch = Mapping[str, torch.Tensor]


class TokenLosses(NamedTuple):
    """One forward pass of a causal LM that is trained: the losses of its targets, and what it adds to their mean."""

    nats: torch.Tensor  # [B, T-1], as `token_nats` has them
    auxiliary: torch.Tensor | None  # scalar, its coefficient included; None where the model adds nothing


def target_mask(batch: Batch) -> torch.Tensor:
    """bool[B, T-1]: whether position t's next token is a target. A row of T tokens has at most T-1 targets."""
    return batch["labels"][:, 1:] != IGNORE_INDEX


def token_nats(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Negative log-likelihood of each target token, natural log.

    Args:
        model: a causal LM, also wrapped by DDP, FSDP or `torch.compile`.
        batch: ``input_ids[B, T]`` and ``labels[B, T]`` (not shifted; -100 is no target), optionally
            ``attention_mask`` and ``position_ids``.

    Returns:
        nats[B, T-1] in float32 (float64 for a float64 model), 0 where the label is masked.

    Raises:
        InputError: see `target_nats`.
    """
    return _losses(model, batch, auxiliary=False).nats


def token_losses(model: nn.Module, batch: Batch) -> TokenLosses:
    """`token_nats` together with the terms that the model itself adds to the mean loss of a batch when it is trained.

    These are the load-balancing loss of a mixture of experts whose configuration has ``output_router_logits: true``
    (Fedus et al. 2022, Eq. 4) and the z-loss of the logits (Bamba). They are means over the rows of the batch, so that
    those of micro-batches have to be weighed by their share of the rows.

    Raises:
        InputError: see `target_nats`.
    """
    config = getattr(_unwrapped(model), "config", None)
    return _losses(model, batch, auxiliary=isinstance(config, PretrainedConfig) and has_auxiliary_loss(config))


def has_auxiliary_loss(config: PretrainedConfig) -> bool:
    """Whether a causal LM of this configuration adds anything to the cross entropy while it is trained."""
    text_config = text_part(config)
    return bool(getattr(text_config, "output_router_logits", False)) or _has_loss_of_logits(text_config)


def _has_loss_of_logits(text_config: PretrainedConfig) -> bool:
    """Whether there is a term of all the logits, which then have to be computed."""
    return (getattr(text_config, "z_loss_coefficient", None) or 0) > 0


def _losses(model: nn.Module, batch: Batch, *, auxiliary: bool) -> TokenLosses:
    inputs = {key: batch[key] for key in MODEL_INPUTS if key in batch}
    if "position_ids" in inputs and _attention_wants_one_row(model):
        return _losses_in_one_row(model, inputs, batch["labels"], auxiliary=auxiliary)
    return _target_losses(model, inputs, batch["labels"][:, 1:], auxiliary=auxiliary)


def _attention_wants_one_row(model: nn.Module) -> bool:
    """FlashAttention keeps documents apart where positions restart, but only within a batch of one row."""
    return "flash" in (getattr(_unwrapped(model).config, "_attn_implementation", None) or "")


def _losses_in_one_row(model: nn.Module, inputs: Batch, labels: torch.Tensor, *, auxiliary: bool) -> TokenLosses:
    """Losses of rows joined to one, as transformers' padding-free collation does; positions restart at each.

    Padding, at the end of rows, is seen by nothing before it and needs no mask.
    """
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)  # the end of a row predicts no other row
    joined = {key: inputs[key].reshape(1, -1) for key in ("input_ids", "position_ids")}
    losses = _target_losses(model, joined, targets.reshape(1, -1), auxiliary=auxiliary)
    return losses._replace(nats=losses.nats.view(labels.shape)[:, :-1])


def target_nats(model: nn.Module, inputs: Batch, targets: torch.Tensor) -> torch.Tensor:
    """nats[B, S]: the loss of ``targets[B, S]``, already shifted: target s follows ``input_ids[:, : s + 1]``.

    Raises:
        InputError: the model's outputs are cast to bfloat16 or float16, as FSDP's mixed precision can.
    """
    return _target_losses(model, inputs, targets, auxiliary=False).nats


def _target_losses(model: nn.Module, inputs: Batch, targets: torch.Tensor, *, auxiliary: bool) -> TokenLosses:
    install(_unwrapped(model))
    if auxiliary:
        losses = TokenLosses(*model(**inputs, use_cache=False, targets=targets, auxiliary=True))
    else:
        losses = TokenLosses(model(**inputs, use_cache=False, targets=targets), None)
    if losses.nats.dtype in LOW_PRECISION:
        raise InputError(
            f"token losses came out in {losses.nats.dtype}: the mixed-precision policy of FSDP casts outputs; "
            "differences of losses need float32, so set its output_dtype to None (param_dtype may stay as it is)"
        )
    return losses


def install(model: nn.Module) -> None:
    """Let the forward of ``model`` take ``targets[B, S]`` and return nats[B, S]; without them nothing changes.

    With ``auxiliary`` as well it returns a pair, the second what the model adds to the mean loss (see `token_losses`).

    Done at the first use. Call it before a model is given to accelerate or FSDP: the probe needs whole parameters and a
    forward that is the model's own, else the losses are computed from all the logits, with a notice. Calling it again
    is harmless; configurations, saved models and copies are as they would be without.
    """
    if _takes_targets(model):
        return
    obstacle = _obstacle(model)
    head = None if obstacle else output_head.resolve(model)
    if head is None:
        logger.warning(
            "%s: token losses are computed from all the logits at once, which takes memory: %s",
            getattr(getattr(model, "config", None), "model_type", type(model).__name__),
            obstacle or "its logits are more than a linear layer of the hidden states, a scale and a soft cap",
        )
    else:
        linear: Any = _output_layer(model)
        linear.forward = MethodType(_linear_forward, linear)
    model.forward = MethodType(_forward_with_targets(_plain(model.forward), head), model)


def _obstacle(model: nn.Module) -> str | None:
    if not isinstance(model, PreTrainedModel):
        return "it is not a model of transformers"
    if _has_loss_of_logits(text_part(model.config)):
        return "its loss has a term of all the logits"
    if _plain(model.forward) is not type(model).forward:
        return "its forward was wrapped before doremi.models.token_loss.install was called"
    weight = getattr(_output_layer(model), "weight", None)
    sharded = model_has_dtensor(model) or (weight is not None and weight.dim() != 2)  # flat in FSDP1 and ZeRO-3
    if sharded or any(parameter.is_meta for parameter in model.parameters()):
        return "its parameters were sharded, or on no device yet, when doremi.models.token_loss.install was called"
    return None


def _output_layer(model: Any) -> nn.Module:
    return model.get_output_embeddings()


def _takes_targets(model: nn.Module) -> bool:
    """Whether `install` has been here and the output layer is still the one it knew (accelerate may have wrapped)."""
    forward = inspect.unwrap(model.forward, stop=lambda function: hasattr(function, "without_targets"))
    if not hasattr(forward, "without_targets"):
        return False
    return forward.head is None or "forward" in vars(_output_layer(model))


def _plain(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a model's bound forward, as it was before `install`."""
    function = getattr(forward, "__func__", lambda self, *args, **kwargs: forward(*args, **kwargs))
    return getattr(function, "without_targets", function)


def _forward_with_targets(without_targets: Callable[..., Any], head: OutputHead | None) -> Callable[..., Any]:
    @functools.wraps(without_targets)
    def forward(
        self: Any, *args: Any, targets: torch.Tensor | None = None, auxiliary: bool = False, **kwargs: Any
    ) -> Any:
        if targets is None:
            return without_targets(self, *args, **kwargs)
        if auxiliary:
            return _nats_and_auxiliary(self, without_targets, head, targets, *args, **kwargs)
        if head is None:
            return _logits_nats(without_targets(self, *args, **kwargs).logits, targets)
        body = output_head.backbone(self)
        assert body is not None
        return _hidden_nats(_output_layer(self), body(*args, **kwargs)[0], targets, head)

    # Who inspects the signature is to see the model's own; who unwraps, as accelerate does, is to stop here.
    forward.__signature__ = inspect.signature(without_targets)  # type: ignore[attr-defined]
    del forward.__wrapped__
    forward.without_targets, forward.head = without_targets, head  # type: ignore[attr-defined]
    return forward


@torch.compiler.disable(recursive=False)
def _nats_and_auxiliary(
    model: nn.Module,
    without_targets: Callable[..., Any],
    head: OutputHead | None,
    targets: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's own forward, which knows its terms; where its head is known, with the logits of one position only."""
    tokens = kwargs["input_ids"]
    if head is None:
        output = without_targets(model, *args, **kwargs, **_no_cross_entropy(tokens))
        return _logits_nats(output.logits, targets), output.loss
    body = output_head.backbone(model)
    assert body is not None
    with _outputs_kept(body) as outputs:
        output = without_targets(model, *args, **kwargs, **_no_cross_entropy(tokens[:, :1]), logits_to_keep=1)
    return _hidden_nats(_output_layer(model), outputs[0][0], targets, head), output.loss


def _no_cross_entropy(tokens: torch.Tensor) -> dict[str, Any]:
    """Arguments with which a model's own loss is what it adds to the cross entropy, its coefficient included.

    No label counts, and a sum over none of them divided by one is 0; a mean would be NaN.
    """
    return {"labels": torch.full_like(tokens, IGNORE_INDEX), "num_items_in_batch": 1}


@contextmanager
def _outputs_kept(module: nn.Module) -> Iterator[list[Any]]:
    """The outputs of the module's forward passes within the context."""
    outputs: list[Any] = []
    handle = module.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def _linear_forward(
    self: nn.Linear, input: torch.Tensor, *, targets: torch.Tensor | None = None, head: OutputHead | None = None
) -> torch.Tensor:
    if targets is None or head is None:
        return nn.Linear.forward(self, input)
    return linear_nats(input, self.weight, self.bias, targets, head=head)


_linear_forward.__name__ = "forward"  # bound methods are pickled by name: a model that was loaded has its own again


@torch.compiler.disable
def _hidden_nats(linear: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, head: OutputHead) -> torch.Tensor:
    mask = targets != IGNORE_INDEX
    # Also where nothing is masked: a graph that depends on a rank's data makes FSDP's ranks gather in different orders.
    nats = linear(hidden[:, : targets.shape[1]][mask], targets=targets[mask], head=head)
    return nats.new_zeros(targets.shape).masked_scatter(mask, nats)


def _logits_nats(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = logits[:, : targets.shape[1]]
    if logits.dtype in LOW_PRECISION:
        logits = logits.float()
    nats = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return nats.view(targets.shape).clone()  # FSDP warns of outputs that are views


def _unwrapped(model: nn.Module) -> nn.Module:
    while (inner := extract_model_from_parallel(model, keep_torch_compile=False)) is not model:
        model = inner
    return model
