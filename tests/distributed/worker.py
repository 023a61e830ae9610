"""What every process does in the tests of the numbers: all cases of one number of processes, one after the other.

``torchrun -m tests.distributed.worker FOLDER`` leaves a file of results for each rank.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, TrainerCallback
from transformers.utils import logging as transformers_logging

from doremi import launch
from doremi.evaluation.perplexity import HeldOutSet, Window
from doremi.experiment.held_out_curve import PREFIX, HeldOutCurve
from doremi.mixture import MixtureSettings
from doremi.training import checkpoints, distributed
from doremi.training.schedules import LearningRateSchedule
from doremi.training.signals import ExcessLoss, TokenMean
from doremi.training.trainer import DoReMiTrainer
from tests.training.fakes import SEQUENCE_LENGTH, InMemoryStore, arguments, parameters, tiny_model

GLOBAL_BATCH_SIZE, STEPS = 8, 20
STORE = InMemoryStore()
CASES = {
    "DDP": {},
    "DDP, two micro-batches": {"accumulation": 2},
    "DDP, plain": {"proxy": False},
    "FSDP": {"fsdp": True},
    "FSDP, two micro-batches": {"fsdp": True, "accumulation": 2},
    "FSDP, plain": {"fsdp": True, "proxy": False},
}
CASES_BY_NUM_PROCESSES = {
    1: ["DDP"],  # there is nothing to shard over
    2: list(CASES),
    4: ["DDP, two micro-batches", "FSDP"],
}


def make_trainer(folder, *, proxy=True, accumulation=1, callbacks=(), **settings):
    """A trainer of a float64 model on this process' share of a global batch of 8."""
    micro_batch = GLOBAL_BATCH_SIZE // (launch.world_size() * accumulation)
    args = arguments(folder, micro_batch=micro_batch, accumulation=accumulation, steps=STEPS, **settings)
    curve = HeldOutCurve(held_out(), every=10, batch_size=2)
    curve.trainer = DoReMiTrainer(
        tiny_model(1),
        objective=ExcessLoss(tiny_model(2), names=STORE.names) if proxy else TokenMean(STORE.names),
        corpus=STORE,
        args=args,
        mixture=MixtureSettings(sequence_length=SEQUENCE_LENGTH),
        learning_rate_schedule=LearningRateSchedule("cosine", 0.05),
        callbacks=[curve, *callbacks],
    )
    return curve.trainer


def held_out():
    """Windows of three domains: 7, 2 and none, so that no number of processes divides them."""
    rng = np.random.default_rng(0)

    def window(length):
        tokens = rng.integers(1, 20, size=length + 1)
        return Window(tokens[:-1], tokens[1:])

    windows = tuple(tuple(window(length) for length in lengths) for lengths in ([9, 3, 5, 12, 1, 7, 7], [4, 11], []))
    num_tokens = np.array([sum(len(w.targets) for w in domain) for domain in windows])
    documents = (np.zeros(1, np.int64),) * 3
    return HeldOutSet(STORE.names, windows, documents, num_tokens, bytes_per_token=np.full(3, np.nan))


def results(trainer):
    """What all ways of training must agree on."""
    log = [entry for entry in trainer.state.log_history if f"{PREFIX}a" in entry]
    return {
        "parameters": torch.cat([whole(p).detach().flatten() for p in trainer.model.parameters()]),
        "weights": trainer.objective.dro.weights.tolist() if hasattr(trainer.objective, "dro") else [],
        "held_out": [[entry[f"{PREFIX}{name}"] for name in STORE.names] for entry in log],
        "train_nats": [e[f"train_nats/{n}"] for e in trainer.state.log_history if "loss" in e for n in STORE.names],
        "loss": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }


def whole(tensor):
    """A parameter that may be sharded."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class CountedCollectives(TrainerCallback):
    """What is sent through the functions of torch.distributed, which DDP's own reduction of gradients bypasses."""

    def __init__(self, functions=("all_reduce", "barrier", "broadcast", "all_gather", "all_gather_object")):
        self.sent, self.steps = [], []  # [name, bytes], and how many there had been when each step began
        for name in functions:
            setattr(torch.distributed, name, self.counted(name, getattr(torch.distributed, name)))

    def counted(self, name, collective):
        def counted(*arguments, **settings):
            self.sent.append([name, getattr(arguments[0], "nbytes", None) if arguments else 0])
            return collective(*arguments, **settings)

        return counted

    def on_step_begin(self, args, state, control, **kwargs):
        self.steps.append(len(self.sent))

    def between(self, *, step, and_step):
        """[name, bytes] of all that was sent from the beginning of one step, the first is 1, to that of another."""
        return self.sent[self.steps[step - 1] : self.steps[and_step - 1]] if self.steps else []


def resume_fsdp(folder, undisturbed):
    """Whether a run that lost its last checkpoint, and one that lost none, end with the very same numbers."""
    same = []
    for lost in (["checkpoint-20"], []):
        distributed.barrier()
        if distributed.rank() == 0:
            for name in lost:
                checkpoints.discard(folder / name)
        distributed.barrier()
        resumed = make_trainer(folder, fsdp=True, save_steps=10)
        resumed.train(resume_from_checkpoint=True)
        same.append(torch.equal(results(resumed)["parameters"], undisturbed["parameters"]))
        same.append(resumed.objective.dro.weights.tolist() == undisturbed["weights"])
    resumed.save_model(str(folder / "final"))
    distributed.barrier()
    loaded = AutoModelForCausalLM.from_pretrained(folder / "final")
    return [*same, torch.equal(parameters(loaded), undisturbed["parameters"])]


def sharding(trainer):
    """What share of the model and of the reference this rank holds between two steps, and what accelerate thinks."""
    for module in trainer.model.modules():
        if hasattr(module, "reshard"):
            module.reshard()  # as a backward pass would; the last thing was an evaluation
    models = (trainer.model, trainer.objective.reference)
    local = [sum(map(num_local, model.parameters())) / model.num_parameters() for model in models]
    return [*local, str(trainer.accelerator.distributed_type)]


def num_local(parameter):
    return (parameter.to_local() if hasattr(parameter, "to_local") else parameter).numel()


def main(folder):
    transformers_logging.disable_progress_bar()
    num_processes, found, counted = launch.world_size(), {}, CountedCollectives()
    for name in CASES_BY_NUM_PROCESSES[num_processes]:
        saving = {"save_steps": 10} if name == "FSDP" else {"save_strategy": "no"}
        trainer = make_trainer(folder / name, callbacks=[counted] if name == "DDP" else [], **saving, **CASES[name])
        trainer.train()
        found[name] = results(trainer)
        if name == "FSDP":
            found["sharding"] = sharding(trainer)
    found["sent"] = counted.between(step=2, and_step=5)
    if num_processes == 2:
        found["resumed"] = resume_fsdp(folder / "FSDP", found["FSDP"])
        bfloat16 = make_trainer(folder / "bfloat16", fsdp=True, bf16=True)
        found["reduced in"] = str(bfloat16.accelerator.state.fsdp_plugin.mixed_precision_policy.reduce_dtype)
    torch.save(found, folder / f"rank-{distributed.rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    launch.exit_process(0)
