"""Accelerators that a plan knows: what they compute at most in bfloat16, and how much memory they have."""

from __future__ import annotations

from typing import NamedTuple

from doremi.errors import InputError


class Device(NamedTuple):
    """One accelerator."""

    peak_flops: float  # per second, bfloat16, dense: half of what datasheets give "with sparsity"
    memory_gb: float  # 1e9 bytes
    source: str


# The same peaks as in torchtitan's and nanochat's tables for the utilisation of model FLOPs.
DEVICES = {
    "h100-sxm": Device(989e12, 80, "NVIDIA H100 datasheet: 1,979 TFLOPS with sparsity"),
    "h100-pcie": Device(756e12, 80, "NVIDIA H100 datasheet: 1,513 TFLOPS with sparsity"),
    "h200": Device(989e12, 141, "NVIDIA H200 datasheet: 1,979 TFLOPS with sparsity"),
    "b200": Device(2250e12, 180, "NVIDIA DGX B200 datasheet: 36 PFLOPS with sparsity and 1,440 GB in 8"),
    "a100-40gb": Device(312e12, 40, "NVIDIA A100 datasheet"),
    "a100-80gb": Device(312e12, 80, "NVIDIA A100 datasheet"),
    "l40s": Device(362e12, 48, "NVIDIA L40S datasheet: 362.05 TFLOPS"),
    "a10": Device(125e12, 24, "NVIDIA A10 datasheet"),
    "rtx-4090": Device(165.2e12, 24, "NVIDIA Ada whitepaper, appendix A: with FP32 accumulation"),
    "mi300x": Device(1307.4e12, 192, "AMD Instinct MI300X datasheet"),
}


def find(name: str) -> Device:
    """The device of that name.

    Raises:
        InputError: there is none; the message lists those known.
    """
    if name.lower() not in DEVICES:
        raise InputError(
            f"--device {name}: not known; there are {', '.join(DEVICES)}. Any other, a CPU too, is measured where it "
            "is: --measure"
        )
    return DEVICES[name.lower()]
