"""What a model type must compute, worked out with plain PyTorch from the model's own logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

LEARNING_RATE, ADAM_EPSILON = 1e-2, 1e-4  # an epsilon that keeps Adam from making steps of gradients that are rounding
STEP_SIZE, SMOOTHING = 1.0, 1e-3  # η and c
INPUTS = ("input_ids", "position_ids")

Batch = dict[str, torch.Tensor]


def token_losses(model, batch: Batch) -> torch.Tensor:
    """nats[B, T-1] by cross entropy over ``model(...).logits``; 0 where the label is masked."""
    inputs = {key: batch[key] for key in INPUTS if key in batch}
    logits = model(**inputs, use_cache=False).logits[:, :-1].float()
    labels = batch["labels"][:, 1:]
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


def proxy_steps(model, reference, batches: Sequence[Batch], *, num_domains: int) -> list[torch.Tensor]:
    """Algorithm 1 on the given global batches: α after each step; ``model`` is trained in place.

    Both are in eval mode: with dropout at 0 that is what training mode computes.
    """
    model.eval()
    reference.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, eps=ADAM_EPSILON, weight_decay=0.0)
    alpha = torch.full((num_domains,), 1 / num_domains, dtype=torch.float64)
    alphas = []
    for batch in batches:
        members = [batch["domain_ids"] == domain for domain in range(num_domains)]
        own = token_losses(model, batch)
        with torch.no_grad():
            excess = (own - token_losses(reference, batch)).clamp(min=0)
            scores = torch.stack([excess[member].double().mean() for member in members])
            grown = alpha * torch.exp(STEP_SIZE * scores)
            alpha = (1 - SMOOTHING) * grown / grown.sum() + SMOOTHING / num_domains
        optimizer.zero_grad()
        sum(alpha[domain].float() * own[members[domain]].mean() for domain in range(num_domains)).backward()
        optimizer.step()
        alphas.append(alpha)
    return alphas


def largest_change(
    losses: Callable[[Batch], torch.Tensor], batch: Batch, *, position: int, kept: slice, vocab_size: int
) -> float:
    """Relative change of the losses at ``kept`` when the token at ``position`` is another one; the labels stay."""
    changed = {key: value.clone() for key, value in batch.items()}
    changed["input_ids"][:, position] = (changed["input_ids"][:, position] + vocab_size // 3) % (vocab_size - 1) + 1
    with torch.no_grad():
        return relative_error(losses(changed)[:, kept], losses(batch)[:, kept])


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest expected value."""
    return float((actual - expected).abs().max() / expected.abs().max())


def forward_flops(model, tokens: torch.Tensor) -> float | None:
    """FLOPs of the matrix products of a forward pass, as PyTorch counts them one by one, attention included.

    Experts run one by one: PyTorch's counter knows no grouped products. None where it fails: it follows modules by
    their gradients, and some (DBRX) change tensors in place.
    """
    with suppress(ValueError):  # no experts
        model.set_experts_implementation("eager")
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(input_ids=tokens, use_cache=False)
    except AssertionError:
        return None
    return float(counter.get_total_flops())
