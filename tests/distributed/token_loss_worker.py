"""Each of two processes scores its half of a batch under every way to distribute a model.

``torchrun -m tests.distributed.token_loss_worker FOLDER`` leaves nats and gradients of each rank.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from doremi.models.linear_nats import CHUNK_ROWS
from doremi.models.token_loss import install, token_nats
from tests.training.fakes import VOCAB_SIZE, tiny_model

NUM_ROWS = 4
STEPS = 2  # parameters that FSDP gave up after the first must be back for the second


def batch(rows=slice(None)):
    """Unequal numbers of targets, and token weights that are no rank's own."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, VOCAB_SIZE, (NUM_ROWS, 9), generator=generator)
    labels = tokens.clone()
    labels[1, 4:] = -100
    token_weights = torch.rand(NUM_ROWS, 8, generator=generator, dtype=torch.float64)
    return {"input_ids": tokens[rows], "labels": labels[rows]}, token_weights[rows]


def score(model, rows=slice(None), *, world_size=1):
    """Nats [rows, 8] and the gradient of every parameter of world_size · Σ w nats, the last of some steps."""
    inputs, token_weights = batch(rows)
    for _ in range(STEPS):
        model.zero_grad()
        nats = token_nats(model, inputs)
        (world_size * (token_weights * nats).sum()).backward()
        with torch.no_grad():
            assert torch.equal(token_nats(model, inputs), nats)
    gradients = {name.removeprefix("module."): parameter.grad for name, parameter in model.named_parameters()}
    return nats.detach(), {name: getattr(g, "full_tensor", lambda g=g: g)() for name, g in gradients.items()}


def ddp(model):
    return DistributedDataParallel(model)


def fsdp(model):
    """Layers, then the rest, of which the output layer is a part."""
    for layer in model.model.layers:
        fully_shard(layer)
    return fully_shard(model, reshard_after_forward=True)


def fsdp_with_tail(model):
    """As accelerate does it: last norm and output layer (and the embedding that it shares) in a group of their own."""
    tail = [model.model.norm, model.lm_head]
    fully_shard([*tail, model.model.embed_tokens] if model.config.tie_word_embeddings else tail)
    return fsdp(model)


WAYS = {"DDP": ddp, "FSDP": fsdp, "FSDP with a tail": fsdp_with_tail}


def main(folder):
    CHUNK_ROWS["cpu"] = 5
    dist.init_process_group("gloo")
    rank, found = dist.get_rank(), {}
    own = slice(2 * rank, 2 * rank + 2)
    for way, distribute in WAYS.items():
        for tied in (True, False):
            model = tiny_model(1, tie_word_embeddings=tied)
            install(model)
            assert model.forward.head is not None
            found[f"{way}, tied {tied}"] = score(distribute(model), own, world_size=2)
    found["FSDP, not installed before, tied True"] = score(fsdp(tiny_model(1)), own, world_size=2)
    torch.save(found, folder / f"rank-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
