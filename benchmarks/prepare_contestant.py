"""Measures one contestant in a process of its own: ``python -m benchmarks.prepare_contestant NAME FOLDER``.

Prints one JSON object. The time of imports does not count; that of loading the tokenizer does, except where the
tokenizer runs alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.prepare_text import Text

CONTESTANTS = {
    "doremi": "prepare_ours:doremi_tokenizers",
    "doremi, fastokens": "prepare_ours:doremi_fastokens",
    "encode_batch_fast alone": "prepare_ours:encode_batch_fast",
    "encode_batch alone": "prepare_ours:encode_batch",
    "fastokens alone": "prepare_ours:fastokens_alone",
    "upstream's way": "prepare_peers:filter_per_domain",
    "datasets.map, all cores": "prepare_peers:datasets_map",
    "datatrove": "prepare_peers:datatrove",
}


def measure(name: str, text: Text, out: Path, settings: dict[str, Any]) -> dict[str, float]:
    """MB of text per CPU-second, children included, and per second, and the most memory of a process."""
    module, _, attribute = CONTESTANTS[name].partition(":")
    contestant = getattr(importlib.import_module(f"benchmarks.{module}"), attribute)
    work = contestant(text, out, **settings)
    began, cpu_began = time.perf_counter(), cpu_seconds()
    megabytes = work() / 1e6
    cpu, wall = cpu_seconds() - cpu_began, time.perf_counter() - began
    return {
        "megabytes": megabytes,
        "mb_per_cpu_second": megabytes / cpu,
        "mb_per_second": megabytes / wall,
        "peak_rss_mb": peak_rss_mb(),
    }


def cpu_seconds() -> float:
    """User and system time of this process, its threads and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_rss_mb() -> float:
    """Of this process or its largest child. The peak that getrusage gives for this one could be its parent's."""
    status = Path("/proc/self/status").read_text()
    own = int(status.split("VmHWM:")[1].split()[0])
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num-domains", type=int, help="of the slice, for upstream's way")
    arguments = parser.parse_args()
    settings = {"num_domains": arguments.num_domains} if arguments.num_domains else {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as out:
        print(json.dumps(measure(arguments.name, Text(arguments.folder), Path(out), settings)))


if __name__ == "__main__":
    main()
