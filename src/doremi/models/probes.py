"""What a model is, shown by its own losses: causal, deaf to other documents, the same from pass to pass.

Each probe takes a few forward passes over a few short rows and leaves the model as it was: buffers, mode and random
generators included. A model that fails one would give numbers that mean something else, without any error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedModel

from doremi.errors import InputError
from doremi.models import attention
from doremi.models.token_loss import LOW_PRECISION, token_losses, token_nats

PROBE_LENGTH = 24  # longer than the convolutions of state-space layers (4) and than several documents of them
NUM_DOCUMENTS = 4
NUM_PASSES = 8  # a LayerDrop of 0.05 in two layers shows itself in these with probability 0.56, of 0.1 in four, 0.97
REPEATABLE = {"cpu": 1e-6, "other": 1e-4, "low precision": 2e-2}  # largest relative difference of equal losses
UNMOVED = {"cpu": 1e-5, "other": 1e-4, "low precision": 2e-2}


@dataclass(frozen=True)
class Probe:
    """How a model is probed.

    Args:
        model: a causal LM, also wrapped by DDP or FSDP, then on all ranks at once.
        vocab_size: tokens are drawn below it.
        sequence_length: rows are no longer.
        autocast: makes the context that the forward passes run in; by default they compute in the parameters' dtype.
    """

    model: nn.Module
    vocab_size: int
    sequence_length: int = PROBE_LENGTH
    autocast: Callable[[], AbstractContextManager[object]] = field(default=nullcontext)

    def check(self, *, documents: str) -> None:
        """That losses can be computed, are causal and, for ``separate`` documents, stay within one.

        Raises:
            InputError: they are not.
        """
        self.check_forward()
        self.check_causal()
        if documents == "separate":
            self.check_separate()

    def check_forward(self) -> None:
        """Compute the losses of a row, with what the model adds to them in training.

        Raises:
            InputError: the model fails on it.
        """
        tokens = self._tokens()
        with _mode(self.model, training=False), self._untouched():
            try:
                with self.autocast(), self._kernels():
                    token_losses(self.model, {"input_ids": tokens, "labels": tokens})
            except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
                raise InputError(
                    f"{_type(self.model)} computes no losses of a row of {tokens.shape[1]} tokens: {_line(error)}. "
                    "Check its configuration (overrides may set values of it, such as pad_token_id)"
                ) from None

    def check_causal(self) -> None:
        """Change every token from some place on: no loss before that may move.

        Raises:
            InputError: one does; or losses move although nothing was changed.
        """
        tokens = self._tokens()
        length = tokens.shape[1]
        with _mode(self.model, training=False), self._untouched():
            before = self._nats(tokens, labels=tokens)
            moved = _largest_change(before, self._nats(tokens, labels=tokens))
            if moved > self._tolerance(UNMOVED):
                raise InputError(
                    f"{_type(self.model)} draws random numbers in evaluation too: of the same row, a loss moves by "
                    f"{moved:.2g} of itself. Use a model of another type"
                )
            for place in sorted({length // 2, length - 1}):
                changed = self._changed(tokens, slice(place, None))
                after = self._nats(changed, labels=tokens)  # labels stay: what may move is what was seen
                moved = _largest_change(before[:, :place], after[:, :place])
                if moved > self._tolerance(UNMOVED):
                    raise InputError(
                        f"{_type(self.model)} is not causal: with tokens from place {place} of {length} on changed, an "
                        f"earlier loss moves by {moved:.2g} of itself. It sees what it is to predict, as encoders do; "
                        "use a decoder (of some types, overrides: {is_decoder: true} makes one)"
                    )

    def check_separate(self) -> None:
        """Change one document of a row of four: no loss of the documents after it may move.

        Raises:
            InputError: one does, or the model takes no positions.
        """
        tokens = self._tokens()
        positions, starts = self._documents(tokens)
        with _mode(self.model, training=False), self._untouched():
            try:
                before = self._nats(tokens, labels=tokens, position_ids=positions)
            except (TypeError, ValueError, RuntimeError, IndexError) as error:
                raise InputError(
                    f"training.documents: separate is not possible with {_type(self.model)}, which takes no positions "
                    f"that restart ({_line(error)}). Use documents: joined, or a model of another type"
                ) from None
            for first, end in zip(starts[:-1:2], starts[1::2], strict=True):
                changed = self._changed(tokens, slice(first, end))
                after = self._nats(changed, labels=tokens, position_ids=positions)
                moved = _largest_change(before[:, end:], after[:, end:])
                if moved > self._tolerance(UNMOVED):
                    raise InputError(
                        f"training.documents: separate is not possible with {_type(self.model)}: with a document of a "
                        f"row changed, a loss of a later one moves by {moved:.2g} of itself (its layers know no "
                        "boundaries, or it ignores positions). Use documents: joined, or a model of another type"
                    )

    def check_repeatable(self, *, already_off: list[str]) -> None:
        """Measure one batch in training mode under different seeds: the losses agree.

        Args:
            already_off: names of what was set to 0 before, for the message.

        Raises:
            InputError: they do not.
        """
        tokens = self._tokens()
        with _mode(self.model, training=True), self._untouched():
            first = self._nats(tokens, labels=tokens)
            for seed in range(1, NUM_PASSES):
                torch.manual_seed(seed)
                moved = _largest_change(first, self._nats(tokens, labels=tokens))
                if moved > self._tolerance(REPEATABLE):
                    off = f"; already set to 0: {', '.join(already_off)}" if already_off else ""
                    raise InputError(
                        f"the proxy must give one batch the same losses in every forward pass, and {_type(self.model)} "
                        f"draws random numbers in training mode: a loss moves by {moved:.2g} of itself. "
                        f"{_suspects(self.model)}{off}. Use a model of another type, or switch this off with overrides"
                    )

    def unused_parameters(self) -> list[str]:
        """Names of the parameters that no loss depends on, so that they will never get a gradient.

        Found by following the graph of one forward pass, without a backward pass.
        """
        tokens = self._tokens()
        with _mode(self.model, training=True), self._untouched(grad=True):
            reached = _parameters_behind(self._nats(tokens, labels=tokens))
        return [name for name, p in self.model.named_parameters() if p.requires_grad and id(p) not in reached]

    # ---- one forward pass ----

    def _nats(self, tokens: torch.Tensor, **batch: torch.Tensor) -> torch.Tensor:
        with self.autocast(), self._kernels():
            return token_nats(self.model, {"input_ids": tokens, **batch})

    def _kernels(self) -> AbstractContextManager[None]:
        """FlashAttention has no CPU kernels: where a model waits there for its device, PyTorch's own stand in."""
        is_whole = isinstance(self.model, PreTrainedModel)
        return attention.in_float32(self.model) if is_whole and self._device.type == "cpu" else nullcontext()

    def _tokens(self) -> torch.Tensor:
        """int64[1, T], the same in every probe."""
        shape = (1, max(2, min(PROBE_LENGTH, self.sequence_length)))
        generator = torch.Generator().manual_seed(0)
        return torch.randint(self.vocab_size, shape, generator=generator).to(self._device)

    def _changed(self, tokens: torch.Tensor, places: slice) -> torch.Tensor:
        changed = tokens.clone()
        changed[:, places] = (changed[:, places] + 1 + self.vocab_size // 3) % self.vocab_size
        return changed

    def _documents(self, tokens: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """Positions that restart at each of four documents, int64[1, T], and where these begin, with the end."""
        length = tokens.shape[1]
        number = min(NUM_DOCUMENTS, length // 2 * 2)
        starts = [length * n // number for n in range(number)]
        positions = torch.cat([torch.arange(b - a) for a, b in zip(starts, [*starts[1:], length], strict=True)])
        return positions.expand_as(tokens).to(tokens.device), starts

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _tolerance(self, by_kind: dict[str, float]) -> float:
        autocast = self.autocast is not nullcontext
        if autocast or any(parameter.dtype in LOW_PRECISION for parameter in self.model.parameters()):
            return by_kind["low precision"]
        return by_kind["cpu" if self._device.type == "cpu" else "other"]

    @contextmanager
    def _untouched(self, *, grad: bool = False) -> Iterator[None]:
        """Leave generators and buffers (running averages, the biases of routers, rotary caches) as they are."""
        devices = [self._device] if self._device.type == "cuda" else []
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            with torch.random.fork_rng(devices), torch.set_grad_enabled(grad):
                yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def _largest_change(before: torch.Tensor, after: torch.Tensor) -> float:
    """Largest |after − before| / max(1, |before|); a loss that is not finite in both has not changed."""
    both_bad = ~before.isfinite() & ~after.isfinite()
    change = ((after - before).abs() / before.abs().clamp(min=1)).masked_fill(both_bad, 0)
    return float(change.nan_to_num(nan=torch.inf).max()) if change.numel() else 0.0


def _parameters_behind(nats: torch.Tensor) -> set[int]:
    """Ids of the leaves of the graph that led to ``nats``."""
    seen, stack = set(), [nats.grad_fn]
    leaves = set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        stack.extend(following for following, _ in node.next_functions)
    return leaves


def _suspects(model: nn.Module) -> str:
    """What may be the cause, as far as names say it."""
    words = ("drop", "jitter", "noise", "gumbel", "random", "stochastic")
    names = sorted(
        {
            f"{type(module).__name__}.{key}"
            for module in model.modules()
            for key, value in vars(module).items()
            if any(word in key for word in words) and isinstance(value, int | float) and value
        }
    )
    return f"Suspects by name: {', '.join(names[:5])}" if names else "Nothing in it has a name that says why"


def _line(error: Exception) -> str:
    """The first line of a message, of at most 200 characters."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _type(model: nn.Module) -> str:
    config = getattr(getattr(model, "module", model), "config", None)
    return getattr(config, "model_type", type(model).__name__)


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Every module in one mode for a while, then each in its own again."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training
