"""Speed of the mixture loader against every peer: ``python -m benchmarks.loader [--json FILE]``.

150,000 random sequences of 1,024 tokens in 22 domains of the Pile's sizes are drawn with upstream's published 120M
weights. Each contestant runs in a process of its own, all of them one after the other in each of three rounds, so that
a busy machine slows all alike; figures are medians of the rounds. Peers run in ``.venv-bench`` (see
``peers-loader.txt``). One that does not run fails the benchmark, unless `MAY_BE_MISSING` says why it may.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.loader_contestant import CONTESTANTS
from benchmarks.loader_data import Data, generate
from benchmarks.loader_ours import Doremi

ROOT = Path(__file__).parents[1]
PACKAGED_WEIGHTS = ROOT / "src" / "doremi" / "data" / "published_weights.json"
OURS = ("doremi", "bound")
MAY_BE_MISSING = {"mosaicml-streaming": "its torchvision does not fit the CPU build of torch"}
DRAWS = (10**6, 10**8, 10**10)  # positions of the scale table
Result = dict[str, Any]


def main() -> None:
    arguments = parse_arguments()
    published = json.loads(arguments.weights.read_text())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        data = generate(Path(folder), published, num_rows=arguments.rows)
        names = prepared(data, arguments.python)
        rounds = [
            {name: run(name, data, arguments.python, "--seconds", str(arguments.seconds)) for name in names}
            for _ in range(arguments.rounds)
        ]
        report = summarise(rounds, resume_scale(data))
    print(table(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--weights", type=Path, default=PACKAGED_WEIGHTS, help="published weights")
    parser.add_argument("--rows", type=int, default=150_000, help="sequences, each of 15 kB on disk in all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="at most, for one contestant in one round")
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-bench" / "bin" / "python", help="of the peers")
    parser.add_argument("--folder", type=Path, help="where the data is generated, and deleted in the end")
    return parser.parse_args()


def prepared(data: Data, peers_python: Path) -> list[str]:
    """The contestants, after each has written the layout that it reads.

    Raises:
        SystemExit: one of them does not run here: figures without it would say less than they seem to.
    """
    failures = {name: reason for name in CONTESTANTS if (reason := _failure(name, data, peers_python)) is not None}
    for name, reason in failures.items():
        print(f"{name} does not run here ({MAY_BE_MISSING.get(name, 'unexpected')}): {reason}", file=sys.stderr)
    if unexpected := failures.keys() - MAY_BE_MISSING.keys():
        sys.exit(f"no comparison without {', '.join(sorted(unexpected))}; `rm -r .venv-bench` and try again")
    return [name for name in CONTESTANTS if name not in failures]


def _failure(name: str, data: Data, peers_python: Path) -> str | None:
    """The last line of what a contestant complains of while it prepares; None where it runs."""
    try:
        run(name, data, peers_python, "--prepare")
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        output = getattr(error, "stderr", None) or str(error)
        return output.strip().splitlines()[-1]
    return None


def run(name: str, data: Data, peers_python: Path, *options: str) -> Result:
    """One contestant in a process of its own, with one thread."""
    python = sys.executable if name in OURS else str(peers_python)
    command = [python, "-W", "ignore", "-m", "benchmarks.loader_contestant", name, str(data.folder), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]) if "--prepare" not in options else {}


def resume_scale(data: Data) -> dict[str, float]:
    """Seconds from nothing to the first batch after so many draws: the median of 3, data opened anew each time."""
    scale = {}
    for num_draws in DRAWS:
        state = Doremi(data).state()
        state["schedule"]["step"] = num_draws // state["schedule"]["global_batch_size"]
        for name, values in state["schedule"]["domains"].items():
            values[1] = int(num_draws * data.weights[name])
        scale[f"{num_draws:.0e}"] = statistics.median(_seconds_to_first_batch(data, state) for _ in range(3))
    return scale


def _seconds_to_first_batch(data: Data, state: Any) -> float:
    began = time.perf_counter()
    loader = Doremi(data)
    loader.load(state)
    next(iter(loader.batches()))
    return time.perf_counter() - began


def summarise(rounds: list[dict[str, Result]], scale: dict[str, float]) -> Result:
    """Medians over the rounds, and the ratios of each round, whose contestants ran under like conditions."""
    keys = list(rounds[0]["doremi"])
    contestants = {name: {key: _median([each[name][key] for each in rounds]) for key in keys} for name in rounds[0]}
    peers = [name for name in contestants if name not in OURS]
    speed = "samples_per_cpu_second"
    fastest = max(peers, key=lambda name: contestants[name][speed])

    def ratio_to(other: str) -> float:
        return statistics.median(each["doremi"][speed] / each[other][speed] for each in rounds)

    return {
        "ratio_vs_fastest_peer": ratio_to(fastest),
        "fastest_peer": fastest,
        "fraction_of_bound": ratio_to("bound"),
        "resume_seconds_max": max(contestants["doremi"]["resume_seconds"], *scale.values()),
        "resume_seconds_after_draws": scale,
        "worst_count_error": contestants["doremi"]["count_error"],
        "state_bytes": contestants["doremi"]["state_bytes"],
        "contestants": contestants,
    }


def _median(values: list[Any]) -> float | None:
    return None if None in values else statistics.median(values)


def table(report: Result) -> str:
    """The figures for a terminal."""
    columns = [
        ("samples/CPU-s", "samples_per_cpu_second", "{:,.0f}"),
        ("samples/s", "samples_per_second", "{:,.0f}"),
        ("start-up s", "startup_seconds", "{:.2f}"),
        ("resume s", "resume_seconds", "{:.3f}"),
        ("after draws", "samples", "{:,.0f}"),
        ("state B", "state_bytes", "{:,.0f}"),
        ("memory MB", "memory_mb", "{:,.0f}"),
        ("count error", "count_error", "{:.1f}"),
    ]
    lines = [f"{'':20}" + "".join(f"{title:>15}" for title, _, _ in columns)]
    ranked = sorted(report["contestants"].items(), key=lambda item: -item[1]["samples_per_cpu_second"])
    for name, values in ranked:
        cells = [layout.format(values[key]) if values[key] is not None else "-" for _, key, layout in columns]
        lines.append(f"{name:20}" + "".join(f"{cell:>15}" for cell in cells))
    scale = ", ".join(
        f"{seconds:.3f} s after {draws}" for draws, seconds in report["resume_seconds_after_draws"].items()
    )
    versus = f"{report['ratio_vs_fastest_peer']:.2f} x {report['fastest_peer']}"
    return "\n".join([*lines, f"doremi: {versus}, {report['fraction_of_bound']:.2f} of the bound; resume {scale}"])


if __name__ == "__main__":
    main()
