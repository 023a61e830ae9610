"""The mix of an export for torchtitan, over both kinds of grain's data sets: tokens by domain's id."""

import json
import runpy
import sys
from collections import Counter
from itertools import islice

import grain


def drawn(folder: str, domains: dict[str, tuple[int, list[int]]]) -> list[Counter]:
    mix = runpy.run_path(f"{folder}/torchtitan_mixture.py")["grain_mix"]
    maps = {
        name: grain.MapDataset.source([(token, length) for length in lengths]).shuffle(seed=1).repeat()
        for name, (token, lengths) in domains.items()
    }
    iters = {name: domain.to_iter_dataset(grain.ReadOptions(num_threads=0)) for name, domain in maps.items()}
    return [total(mix(maps)), total(mix(iters))]


def total(dataset) -> Counter:
    found = Counter()
    for token, length in islice(iter(dataset), 3000):
        found[token] += length
    return found


print(json.dumps({folder: drawn(folder, domains) for folder, domains in json.loads(sys.argv[1]).items()}))
