"""What every process does in the test of policies: a run whose weights move at every step.

``torchrun -m tests.distributed.policy_worker FOLDER`` leaves each rank's numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from doremi import launch
from doremi.mixture import MixtureSettings
from doremi.training import DoReMiTrainer, Objective
from tests.training.fakes import SEQUENCE_LENGTH, arguments, parameters, tiny_model
from tests.training.policies import STORE, FollowsLosses, MovesBoth, bench

POLICIES = {"after": FollowsLosses, "before, both": MovesBoth}


def train(folder, name, *, num_processes):
    """Eight steps in two micro-batches a process, read ahead."""
    policy = POLICIES[name]()
    trainer = DoReMiTrainer(
        tiny_model(1),
        objective=Objective(STORE.names, policy=policy, state=policy.init(bench())),
        corpus=STORE,
        args=arguments(folder, micro_batch=6 // num_processes, accumulation=2, steps=8, save_strategy="no"),
        mixture=MixtureSettings(sequence_length=SEQUENCE_LENGTH, reading="ahead"),
        allow_absent_domains=True,
    )
    trainer.train()
    state = trainer.objective.state
    return {
        "parameters": parameters(trainer.model),
        "weights": torch.from_numpy(state.weights),
        "rows": torch.from_numpy(state.rows),
        "delivered": torch.tensor(list(trainer.loader.delivered.values())),
    }


def main(folder):
    found = {name: train(folder / name, name, num_processes=launch.world_size()) for name in POLICIES}
    torch.save(found, folder / f"rank-{launch.rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    launch.exit_process(0)
