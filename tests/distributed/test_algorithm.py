"""Real processes follow Algorithm 1 together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.distributed.torchrun import torchrun
from tests.parity.recorded import record
from tests.parity.test_algorithm import algorithm_1


@pytest.mark.parametrize(
    "num_processes", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_alpha_of_every_rank_follows_algorithm_1_for_200_steps(tmp_path, num_processes):
    """Recorded losses with masked tokens, unequal counts and absent domains; accumulation 1, 2 and 5."""
    code, _, stderr = torchrun(num_processes, "tests.parity.gloo_worker", tmp_path)
    assert code == 0, stderr[-3000:]
    expected = [alpha for alpha, _ in algorithm_1(record(absences=True))]
    assert len(expected) == 200
    for rank in range(num_processes):
        found = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert list(found) == ["1", "2", "5"]
        for alphas in found.values():
            np.testing.assert_allclose(alphas, expected, rtol=0, atol=1e-9)
