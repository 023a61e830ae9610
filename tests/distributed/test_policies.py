"""Two gloo processes move weights as one process does."""

from __future__ import annotations

import pytest
import torch

from tests.distributed.policy_worker import POLICIES, train
from tests.distributed.torchrun import torchrun


@pytest.mark.slow
def test_two_processes_move_weights_as_one_does(tmp_path):
    code, _, stderr = torchrun(2, "tests.distributed.policy_worker", tmp_path)
    assert code == 0, stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2)]
    for name in POLICIES:
        alone = train(tmp_path / "alone" / name, name, num_processes=1)
        for key, value in alone.items():
            assert torch.equal(ranks[0][name][key], ranks[1][name][key])
            torch.testing.assert_close(ranks[0][name][key], value, rtol=0, atol=1e-10)
        assert (alone["weights"] - 1 / 3).abs().max() > 0.02
        assert torch.equal(alone["rows"], alone["delivered"])
