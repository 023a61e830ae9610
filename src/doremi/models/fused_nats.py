"""Token losses by the kernels of cut-cross-entropy (Wijmans et al. 2024, arXiv 2411.09009), where they can be used.

They hold no logits at all, not even of a chunk. Chosen on a CUDA device in bfloat16 or float16 when the package is
installed in a version with float32 sums (`impl="cce_exact"`: the repository's, not the 25.1.1 of PyPI), and only after
losses and gradients of a small problem have agreed with our own. Not run by the tests, which have no GPU.

Liger's fused loss takes per-token weights only since 0.8, by recomputing in chunks as `linear_nats` does; before, it
computed the gradient in its forward pass, where α is not known yet.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable

import torch
from torch.nn import functional

from doremi.models.output_head import OutputHead

logger = logging.getLogger(__name__)

FusedNats = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor, OutputHead], torch.Tensor]

TOLERANCE = 0.02  # of the norm; bfloat16 rounds by 0.004


def select(device: torch.device, dtype: torch.dtype) -> FusedNats | None:
    """The kernels, where they serve this device and dtype, else None."""
    if not _serves(device) or dtype not in (torch.bfloat16, torch.float16) or _kernel() is None:
        return None
    return _fused_nats if _agrees(device, dtype) else None


def _serves(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@functools.cache
def _kernel() -> Callable[..., torch.Tensor] | None:
    try:
        from cut_cross_entropy import linear_cross_entropy  # type: ignore[import-not-found]
    except ImportError:
        return None
    sums_in_float32 = "accum_c_fp32" in inspect.signature(linear_cross_entropy).parameters
    return linear_cross_entropy if sums_in_float32 else None


def _fused_nats(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, head: OutputHead
) -> torch.Tensor:
    kernel = _kernel()
    assert kernel is not None
    scaled_bias = None if bias is None else (bias * head.scale).to(weight.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        nats = kernel(
            hidden * head.scale,
            weight,
            targets,
            bias=scaled_bias,
            softcap=head.softcap,
            reduction="none",
            impl="cce_exact",
        )
    return nats.float()


@functools.cache
@torch.inference_mode(False)  # the first call may be an evaluation
@torch.enable_grad()
def _agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether losses and gradients of a small problem are those of PyTorch's own operations."""
    generator = torch.Generator(device).manual_seed(0)
    hidden, weight = (torch.randn(n, 128, generator=generator, device=device).to(dtype) for n in (64, 512))
    targets = torch.randint(512, (64,), generator=generator, device=device)
    token_weights = torch.rand(64, generator=generator, device=device)
    inputs = (hidden.requires_grad_(), (weight / 8).requires_grad_())
    both = (
        _fused_nats(*inputs, None, targets, OutputHead()),
        functional.cross_entropy(functional.linear(*inputs).float(), targets, reduction="none"),
    )
    results = [[nats, *torch.autograd.grad((nats * token_weights).sum(), inputs)] for nats in both]
    agrees = all(
        (fused.float() - own.float()).norm() < TOLERANCE * own.float().norm()
        for fused, own in zip(*results, strict=True)
    )
    if not agrees:
        logger.warning("cut_cross_entropy is installed but gives other losses or gradients on %s; not used", device)
    return agrees
