"""Token losses without all the logits inside DDP and FSDP2: what one process finds with the whole batch."""

from __future__ import annotations

import torch

from tests.distributed.token_loss_worker import WAYS, score
from tests.distributed.torchrun import torchrun
from tests.training.fakes import tiny_model


def test_two_processes_find_the_nats_and_gradients_of_one(tmp_path):
    code, _, stderr = torchrun(2, "tests.distributed.token_loss_worker", tmp_path)
    assert code == 0, stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]
    expected = {tied: score(tiny_model(1, tie_word_embeddings=tied)) for tied in (True, False)}
    assert len(ranks[0]) == 2 * len(WAYS) + 1
    for case in ranks[0]:
        nats, gradients = expected[case.endswith("True")]
        torch.testing.assert_close(torch.cat([rank[case][0] for rank in ranks]), nats, rtol=0, atol=1e-12)
        for rank in ranks:
            torch.testing.assert_close(rank[case][1], gradients, rtol=0, atol=1e-12)
    (notice,) = {line for line in stderr.splitlines() if "all the logits" in line}
    assert "its parameters were sharded" in notice
