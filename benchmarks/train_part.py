"""Measures one part of the training benchmark in this process: ``python -m benchmarks.train_part NAME SIZES DEVICE``.

Prints one JSON object. A process of its own for each part, so that none finds memory or caches that another left.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.train_setup import Setting
from benchmarks.train_sizes import SIZES

PARTS = {
    "whole_batch": "train_steps:whole_batch",
    "micro_batches": "train_steps:micro_batches",
    "losses": "train_losses:measure",
    "memory_ours": "train_losses:memory_ours",
    "memory_full": "train_losses:memory_full",
    "bookkeeping": "train_bookkeeping:measure",
}


def measure(name: str, setting: Setting) -> dict[str, Any]:
    """What a part has measured."""
    module, _, function = PARTS[name].partition(":")
    result: dict[str, Any] = getattr(importlib.import_module(f"benchmarks.{module}"), function)(setting)
    return result


def environment(device: torch.device) -> dict[str, Any]:
    """What the figures were taken with."""
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else _processor(),
        "is_gpu": is_gpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=PARTS)
    parser.add_argument("sizes", choices=SIZES)
    parser.add_argument("device", type=torch.device)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(SIZES[arguments.sizes], arguments.device, Path(folder))
        result = measure(arguments.name, setting)
    print(json.dumps({"environment": environment(arguments.device), **result}))


if __name__ == "__main__":
    main()
