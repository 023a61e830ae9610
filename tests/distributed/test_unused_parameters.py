"""DDP waits for a gradient of every parameter, unless it looks for those that get none."""

from __future__ import annotations

import pytest
import torch

from tests.distributed.torchrun import torchrun


@pytest.mark.slow
def test_two_processes_train_a_type_with_unused_parameters(tmp_path):
    for num_processes in (1, 2):
        code, _, stderr = torchrun(num_processes, "tests.distributed.unused_parameters_worker", tmp_path)
        assert code == 0, stderr[-3000:]
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone, rtol=0, atol=1e-9)
