"""Golden losses: a change of the numerics, ours or a library's, shows up here and is committed with the new file.

Rewrite the file with ``python -m tests.training.test_golden``.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.fakes import parameters
from tests.training.test_trainer import train

GOLDEN = Path(__file__).with_name("golden_losses.txt")
HEADER = "step  plain loss (nats per token)  proxy loss (Eq. 1)  largest weight of the adversary"


def losses(folder):
    """float64[20, 3]: of plain training, of the proxy, and the adversary's largest weight, step by step."""
    plain = train(folder / "plain", proxy=False, logging_steps=1, save_steps=100)
    proxy = train(folder / "proxy", logging_steps=1, save_steps=100)
    columns = [[entry["loss"] for entry in trainer.state.log_history if "loss" in entry] for trainer in (plain, proxy)]
    weights = [
        max(value for key, value in entry.items() if key.startswith("dro_weights/"))
        for entry in proxy.state.log_history
        if "loss" in entry
    ]
    return np.array([*columns, weights]).T


def test_losses_are_the_golden_ones(tmp_path):
    golden = np.loadtxt(GOLDEN, skiprows=1)[:, 1:]
    np.testing.assert_allclose(losses(tmp_path), golden, rtol=1e-6)


@pytest.mark.parametrize("split", [{}, {"micro_batch": 2, "accumulation": 4}])
def test_activation_checkpointing_changes_nothing(tmp_path, split):
    plain = train(tmp_path / "plain", steps=10, **split)
    checkpointed = train(tmp_path / "checkpointed", steps=10, activation_checkpointing=True, **split)
    np.testing.assert_allclose(parameters(checkpointed.model), parameters(plain.model), rtol=0, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw_torch_fused", "adamw_torch"])
def test_every_optimizer_resumes_bit_for_bit(tmp_path, optimizer):
    whole = train(tmp_path / "whole", steps=10, optim=optimizer)
    shutil.copytree(tmp_path / "whole" / "checkpoint-5", tmp_path / "cut" / "checkpoint-5")
    resumed = train(tmp_path / "cut", steps=10, optim=optimizer, resume=True)
    assert torch.equal(parameters(resumed.model), parameters(whole.model))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rows = [f"{step:4d}  {a:.10f}  {b:.10f}  {c:.10f}" for step, (a, b, c) in enumerate(losses(Path(folder)), 1)]
    GOLDEN.write_text("\n".join([HEADER, *rows]) + "\n")
