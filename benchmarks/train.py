"""Speed and memory of training: ``python -m benchmarks.train [--device cuda] [--json FILE]``.

Each part runs in a process of its own, on the CPU with one thread. What is compared takes its steps by turns, so that a
busy machine slows all alike; ratios are medians over pairs of turns that follow one another, with their quartiles.

The global batch is always the same: ``accumulated`` and ``delayed`` runs split it into several micro-batches.
``cached`` reads the reference's losses from the page cache. ``bare`` is a plain PyTorch loop with the token losses of
this package, ``bare_full_logits`` one with the loss of transformers. Bookkeeping is a share of the plain step of as
many tokens.

On a GPU it is the 124M body in bfloat16 with compiled layers; ``make bench-gpu`` runs it from ``src`` on a machine that
has torch, transformers, accelerate and xxhash. That was never done: no figure for a GPU is measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.train_part import PARTS
from benchmarks.train_report import Result, summarise, table
from benchmarks.train_sizes import SIZES

ROOT = Path(__file__).parents[1]


def main() -> None:
    arguments = parse_arguments()
    sizes = arguments.sizes or ("gpu" if arguments.device == "cuda" else "cpu")
    parts = {part: run(part, sizes, arguments.device) for part in PARTS}
    report = {"date": datetime.date.today().isoformat(), **summarise(parts, SIZES[sizes])}
    print(table(report))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sizes", choices=SIZES, help="absent: those made for the device")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


def run(part: str, sizes: str, device: str) -> Result:
    """One part in a process of its own."""
    print(f"{part} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.train_part", part, sizes, device]
    threads = {"OMP_NUM_THREADS": "1"} if device == "cpu" else {}
    environment = {**os.environ, **threads, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
