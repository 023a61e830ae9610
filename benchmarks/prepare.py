"""Speed of preparing a corpus: ``python -m benchmarks.prepare [--corpus DIR] [--json FILE]``.

``DIR`` holds ``*.jsonl.zst`` as in the Pile; without it, text of this Python installation is collected. The vocabulary
is GPT-2's. Every contestant gets the same first 30 MB, in a process of its own, all of them one after the other in each
of three rounds, so that a busy machine slows all alike; figures are medians of the rounds. Contestants run in
``.venv-bench`` (see ``peers-prepare.txt``); one that does not run fails the benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.prepare_contestant import CONTESTANTS
from benchmarks.prepare_text import Text

ROOT = Path(__file__).parents[1]
UPSTREAM = "upstream's way"
SPEED = "mb_per_cpu_second"
Result = dict[str, Any]


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        python = str(arguments.python)
        corpus = ["--corpus", str(arguments.corpus)] if arguments.corpus else []
        run(python, "benchmarks.prepare_text", folder, *corpus)
        runs = list_runs(Text(Path(folder)))
        rounds = [measure(runs, folder, python) for _ in range(arguments.rounds)]
        identity = last_json(run(python, "benchmarks.prepare_identity", folder))
    report = summarise(rounds, identity)
    print(table(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepare", description=__doc__)
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="folder of *.jsonl.zst (default: collected text)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--python", type=Path, default=ROOT / ".venv-bench" / "bin" / "python", help="of all contestants"
    )
    parser.add_argument("--folder", type=Path, help="where everything is written, and deleted in the end")
    return parser.parse_args()


def list_runs(text: Text) -> dict[str, list[str]]:
    """The arguments of each contestant by the name of its row; upstream's way once for each number of domains."""
    runs = {name: [name] for name in CONTESTANTS if name != UPSTREAM}
    for count in text.domain_counts:
        runs[f"{UPSTREAM}, {count} domains"] = [UPSTREAM, "--num-domains", str(count)]
    return runs


def measure(runs: dict[str, list[str]], folder: str, python: str) -> dict[str, Result]:
    """One round.

    Raises:
        SystemExit: a contestant does not run here: figures without it would say less than they seem to.
    """
    results = {}
    for name, (contestant, *options) in runs.items():
        try:
            results[name] = last_json(run(python, "benchmarks.prepare_contestant", contestant, folder, *options))
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().splitlines()[-1]
            sys.exit(f"{name} does not run here: {reason}; `rm -r .venv-bench` and try again")
    return results


def run(python: str, module: str, *arguments: str) -> str:
    """Standard output of a module in a process of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }
    command = [python, "-W", "ignore", "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def last_json(output: str) -> Result:
    return json.loads(output.splitlines()[-1])


def summarise(rounds: list[dict[str, Result]], identity: Result) -> Result:
    """Medians over the rounds, and of the ratios within each round, whose contestants ran under like conditions."""
    contestants = {
        name: {key: statistics.median(each[name][key] for each in rounds) for key in rounds[0][name]}
        for name in rounds[0]
    }
    upstreams = [name for name in contestants if name.startswith(UPSTREAM)]

    def ratio(ours: str, other: str) -> float:
        return round(statistics.median(each[ours][SPEED] / each[other][SPEED] for each in rounds), 3)

    for name, values in contestants.items():
        values["times_slower_than_doremi"] = ratio("doremi", name)
    return {
        "ratio_vs_upstream_way": ratio("doremi", upstreams[-1]),
        "ratio_vs_upstream_way_fast": ratio("doremi, fastokens", upstreams[-1]),
        "ratio_vs_tokenizer_alone": ratio("doremi", "encode_batch_fast alone"),
        "ratio_vs_tokenizer_alone_fast": ratio("doremi, fastokens", "fastokens alone"),
        "ratio_vs_upstream_way_by_domains": {
            name.removeprefix(f"{UPSTREAM}, "): ratio("doremi", name) for name in upstreams
        },
        "ids_identical": identity["ids_identical"],
        "peak_rss_mb": max(values["peak_rss_mb"] for name, values in contestants.items() if name.startswith("doremi")),
        "contestants": contestants,
    }


def table(report: Result) -> str:
    """The figures for a terminal."""
    columns = [
        ("MB/CPU-s", SPEED, "{:,.2f}"),
        ("MB/s", "mb_per_second", "{:,.2f}"),
        ("of text, MB", "megabytes", "{:,.0f}"),
        ("doremi's, times", "times_slower_than_doremi", "{:,.2f}"),
        ("memory MB", "peak_rss_mb", "{:,.0f}"),
    ]
    lines = [f"{'':30}" + "".join(f"{title:>16}" for title, _, _ in columns)]
    for name, values in sorted(report["contestants"].items(), key=lambda item: -item[1][SPEED]):
        lines.append(f"{name:30}" + "".join(f"{layout.format(values[key]):>16}" for _, key, layout in columns))
    growth = ", ".join(f"{value} at {name}" for name, value in report["ratio_vs_upstream_way_by_domains"].items())
    return "\n".join(
        [
            *lines,
            f"doremi: {report['ratio_vs_tokenizer_alone']} of encode_batch_fast alone; times upstream: {growth}, "
            f"with fastokens {report['ratio_vs_upstream_way_fast']}",
            f"token ids {'identical' if report['ids_identical'] else 'DIFFER'}",
        ]
    )


if __name__ == "__main__":
    main()
