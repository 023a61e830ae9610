"""Two real processes, each planning for itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.mixture.test_loader import expected_pairs

ROOT = Path(__file__).parents[2]


def test_two_gloo_processes_under_torchrun_draw_what_one_would():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", "tests.mixture.rank_slice"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert first["state"] == second["state"]
    micro_steps = zip(first["drawn"], second["drawn"], strict=True)
    together = [tuple(pair) for ranks in micro_steps for micro_batch in ranks for pair in micro_batch]
    assert together == expected_pairs(2)
    for batch in range(2):  # disjoint, even though nothing is repeated between batches either
        mine, other = (
            {tuple(pair) for micro_batch in rank["drawn"][batch * 3 : batch * 3 + 3] for pair in micro_batch}
            for rank in (first, second)
        )
        assert len(mine) == len(other) == 12
        assert not mine & other
