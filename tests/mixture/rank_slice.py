"""What one of several processes under torchrun draws. Run by test_distributed.py; not a test itself."""

from __future__ import annotations

import itertools
import json
import sys

import torch.distributed as dist

from tests.mixture.memory_store import origins
from tests.mixture.test_loader import make_loader


def main() -> None:
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    loader = make_loader(rank=rank, world_size=world_size)
    mine = [origins(batch) for batch in itertools.islice(loader, 2 * 3)]
    everyones: list = [None] * world_size
    dist.all_gather_object(everyones, {"drawn": mine, "state": loader.state_dict()})
    if rank == 0:
        print(json.dumps(everyones))
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
