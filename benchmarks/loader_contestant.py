"""Measures one contestant in a process of its own: ``python -m benchmarks.loader_contestant NAME FOLDER``.

Prints one JSON object. Imports nothing of doremi unless the contestant does, so that peers run in their environment.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loader_data import BATCH_SIZE, SEQUENCE_LENGTH, Data
from benchmarks.loader_peers import Contestant

CONTESTANTS = {
    "doremi": "loader_ours:Doremi",
    "bound": "loader_ours:Bound",
    "StatefulDataLoader": "loader_peers:StatefulDataLoaderPeer",
    "datasets, iterable": "loader_peers:DatasetsIterable",
    "datasets, map": "loader_peers:DatasetsMap",
    "grain": "loader_peers:Grain",
    "litdata": "loader_formats:LitData",
    "mosaicml-streaming": "loader_formats:Streaming",
    "megatron-core": "loader_formats:Megatron",
}
SHARE_DRAWN = 0.9  # of the corpus: where the state is taken that is then resumed


def find(name: str) -> type[Contestant]:
    """The class of a contestant; imports its module, not yet its library."""
    module, _, attribute = CONTESTANTS[name].partition(":")
    found: type[Contestant] = getattr(importlib.import_module(f"benchmarks.{module}"), attribute)
    return found


def measure(contestant: type[Contestant], data: Data, *, max_seconds: float) -> dict[str, Any]:
    """Speed after the first batch, up to 90 % of the corpus or ``max_seconds``, and the resume from there."""
    began = time.perf_counter()
    loader = contestant(data)
    batches = iter(loader.batches())
    domain_ids = [np.asarray(next(batches)[1])]
    startup = time.perf_counter() - began
    num_batches = int(SHARE_DRAWN * sum(data.rows.values())) // BATCH_SIZE
    began, cpu_began = time.perf_counter(), cpu_seconds()
    for batch in islice(batches, num_batches - 1):
        domain_ids.append(np.asarray(batch[1]))
        if time.perf_counter() - began > max_seconds:
            break
    wall, cpu = time.perf_counter() - began, cpu_seconds() - cpu_began
    assert tuple(batch[0].shape) == (BATCH_SIZE, SEQUENCE_LENGTH)
    assert str(batch[0].dtype).endswith("int64")
    samples = (len(domain_ids) - 1) * BATCH_SIZE
    return {
        "samples": samples,
        "samples_per_cpu_second": samples / cpu,
        "samples_per_second": samples / wall,
        "startup_seconds": startup,
        "memory_mb": anonymous_memory_mb(),
        "count_error": worst_count_error(domain_ids, data.probabilities),
        **measure_resume(contestant, data, loader.state()),
    }


def measure_resume(contestant: type[Contestant], data: Data, state: Any) -> dict[str, Any]:
    """Seconds from nothing to the first batch after ``state``; None where there is none, or it is the end."""
    began = time.perf_counter()
    if state is not None:
        loader = contestant(data)
        loader.load(state)
        if next(iter(loader.batches()), None) is not None:
            seconds = time.perf_counter() - began
            return {"resume_seconds": seconds, "state_bytes": len(json.dumps(state, default=repr))}
    return {"resume_seconds": None, "state_bytes": None}


def worst_count_error(domain_ids: list[np.ndarray], probabilities: np.ndarray) -> float:
    """Rows by which any domain was ever off what its weight asks for, after any batch."""
    counts = np.cumsum([np.bincount(ids, minlength=len(probabilities)) for ids in domain_ids], axis=0)
    asked = np.cumsum([len(ids) for ids in domain_ids])[:, None] * probabilities
    return float(np.abs(counts - asked).max())


def cpu_seconds() -> float:
    """User and system time of this process, its threads and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def anonymous_memory_mb() -> float:
    """Resident memory that is not the page cache's: memory maps of the corpus do not count."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--prepare", action="store_true", help="write the layout the library reads, measure nothing")
    arguments = parser.parse_args()
    contestant, data = find(arguments.name), Data.open(arguments.folder)
    if arguments.prepare:
        contestant.prepare(data)
        contestant(data)  # what cannot be imported should fail here
    else:
        print(json.dumps(measure(contestant, data, max_seconds=arguments.seconds)))


if __name__ == "__main__":
    main()
