"""Several gloo processes train what one process trains, replicated (DDP) and sharded (FSDP2)."""

from __future__ import annotations

from functools import cache
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from tests.distributed.torchrun import torchrun
from tests.distributed.worker import CASES, CASES_BY_NUM_PROCESSES, make_trainer, results


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_any_number_of_processes_trains_what_one_does(tmp_path, num_processes):
    """Float64, 20 steps of the same global batch of 8: the same α and parameters on every rank to 1e-10."""
    code, _, stderr = torchrun(num_processes, "tests.distributed.worker", tmp_path)
    assert code == 0, stderr[-3000:]
    assert "computed from all the logits" not in stderr  # the head is found before DDP or FSDP wraps it
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in range(num_processes)]
    for name in CASES_BY_NUM_PROCESSES[num_processes]:
        for found in ranks:
            assert_equal(found[name], alone(proxy=CASES[name].get("proxy", True)))
    if num_processes > 1:
        check_shards([found["sharding"] for found in ranks])
    if num_processes == 2:
        for found in ranks:
            check_fsdp_and_traffic(found)


@cache
def alone(*, proxy):
    """What a process without a group trains."""
    with TemporaryDirectory() as folder:
        trainer = make_trainer(folder, proxy=proxy, save_strategy="no")
        trainer.train()
        found = results(trainer)
    assert len(found["held_out"]) == 2
    return found


def assert_equal(found, expected):
    torch.testing.assert_close(found["parameters"], expected["parameters"], rtol=0, atol=1e-10)
    for key in ("weights", "held_out", "train_nats"):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)  # transformers adds it up in float32


def check_shards(by_rank):
    """Model and reference: each rank holds about its share, all of them together the whole."""
    assert {kind for _, _, kind in by_rank} == {"DistributedType.FSDP"}
    for held in ([model for model, _, _ in by_rank], [reference for _, reference, _ in by_rank]):
        assert sum(held) == pytest.approx(1)
        assert max(held) < 1.3 / len(by_rank)


def check_fsdp_and_traffic(found):
    assert found["resumed"] == [True] * 5
    assert found["reduced in"] == "torch.float32"
    # of steps 2 to 4, none of which logs: 2k sums and the flag of an interruption, in float64
    assert found["sent"] == [["all_reduce", 8 * (2 * 3 + 1)]] * 3
