"""Two gloo processes train what one process trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.fakes import parameters
from tests.training.test_trainer import train

ROOT = Path(__file__).parents[2]
WORKER = """
import sys, torch
from pathlib import Path
from tests.training.fakes import parameters
from tests.training.test_trainer import train
folder, proxy, accumulation = Path(sys.argv[1]), sys.argv[2] == "True", int(sys.argv[3])
trainer = train(folder / "run", proxy=proxy, micro_batch=4 // accumulation, accumulation=accumulation)
weights = trainer.objective.dro.weights.tolist() if proxy else []
torch.save([parameters(trainer.model), weights], folder / f"rank-{trainer.args.process_index}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize(("proxy", "accumulation"), [(True, 1), (True, 2), (False, 1)])
def test_two_processes_equal_one(tmp_path, proxy, accumulation):
    """Float64, 20 steps of the same global batch of 8: the same α on both ranks, the same parameters to 1e-10."""
    (tmp_path / "worker.py").write_text(WORKER)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(tmp_path / "worker.py")]
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path), str(proxy), str(accumulation)],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one = train(tmp_path / "one", proxy=proxy)
    for rank in range(2):
        trained, weights = torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True)
        torch.testing.assert_close(trained, parameters(one.model), rtol=0, atol=1e-10)
        if proxy:
            np.testing.assert_allclose(weights, one.objective.dro.weights, rtol=0, atol=1e-10)


def environment():
    import os

    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
