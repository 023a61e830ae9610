"""Held-out windows shared out to processes: nothing lost, nothing scored twice, the same number of passes for all."""

from __future__ import annotations

import numpy as np
import pytest

from doremi.evaluation.perplexity import HeldOutSet, Window, mean_nats, nats_sums, share
from tests.training.fakes import tiny_model


@pytest.fixture(scope="module")
def held_out():
    rng = np.random.default_rng(1)
    windows = tuple(
        tuple(Window(tokens[:-1], tokens[-number:]) for number, tokens in cases)
        for cases in ([(n, rng.integers(1, 29, size=n + 4)) for n in lengths] for lengths in ([5, 1, 3, 8, 2], [4], []))
    )
    num_tokens = np.array([sum(len(window.targets) for window in domain) for domain in windows])
    return HeldOutSet(
        ("a", "b", "c"), windows, (np.zeros(1, np.int64),) * 3, num_tokens, bytes_per_token=np.full(3, np.nan)
    )


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_the_shares_add_up_to_the_whole(held_out, world_size):
    model = tiny_model()
    shares = [share(held_out, rank=rank, world_size=world_size) for rank in range(world_size)]
    for domain, windows in enumerate(held_out.windows):
        scored = [window for own in shares for window in own.windows[domain] if len(window.targets)]
        assert sorted(map(id, scored)) == sorted(map(id, windows))
        assert len({len(own.windows[domain]) for own in shares}) == 1
    assert sum(own.num_tokens for own in shares).tolist() == held_out.num_tokens.tolist()
    sums = sum(nats_sums(model, own, batch_size=2) for own in shares)
    np.testing.assert_allclose(sums, nats_sums(model, held_out, batch_size=2), rtol=1e-12)
    np.testing.assert_allclose(mean_nats(sums, held_out), sums / np.maximum(held_out.num_tokens, 1))
