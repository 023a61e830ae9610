"""One of several processes that follow Algorithm 1 together. Run by tests/distributed/test_algorithm.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from doremi.training import distributed
from doremi.training.signals import DomainSums
from tests.parity.recorded import objective_of, record, rows_of


def main(folder: Path) -> None:
    """Write α of every step for accumulation 1, 2 and 5, as this rank has it."""
    dist.init_process_group("gloo")
    rank, num_ranks = distributed.rank(), distributed.world_size()
    steps = record(absences=True)
    found = {}
    for accumulation in (1, 2, 5):
        objective = objective_of(steps, folder / f"cache-{rank}-{accumulation}")
        found[accumulation] = []
        for step in steps:
            own = [
                torch.stack(objective.sums(*step.micro_batch(rows)))
                for m in range(accumulation)
                for rows in [rows_of(rank, m, num_ranks=num_ranks, accumulation=accumulation)]
            ]
            objective.update(DomainSums(*distributed.all_reduce_sum(torch.stack(own).sum(dim=0))))
            found[accumulation].append(objective.dro.weights.tolist())
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
