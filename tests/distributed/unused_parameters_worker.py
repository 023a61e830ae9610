"""Two processes take two steps of a proxy of a type whose parameters are not all used.

``torchrun -m tests.distributed.unused_parameters_worker FOLDER`` leaves each rank's parameters.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from doremi import launch
from doremi.mixture import MixtureSettings
from doremi.training import DoReMiTrainer, ExcessLoss
from tests.conformance import zoo
from tests.training.fakes import SEQUENCE_LENGTH, InMemoryStore, arguments, parameters


def main(folder):
    store = InMemoryStore()
    trainer = DoReMiTrainer(
        zoo.model("bart", dtype=torch.float64),
        objective=ExcessLoss(zoo.model("bart", seed=1, dtype=torch.float64), names=store.names),
        corpus=store,
        args=arguments(folder, micro_batch=8 // launch.world_size(), steps=3),
        mixture=MixtureSettings(sequence_length=SEQUENCE_LENGTH),
    )
    trainer.train()
    torch.save(parameters(trainer.model), folder / f"{launch.world_size()}-{trainer.args.process_index}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
