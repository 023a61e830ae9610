"""The streams of an export, over folders that mosaicml-streaming writes: tokens by domain's id."""

import importlib.util
import json
import sys
import types
from collections import Counter
from importlib.machinery import ModuleSpec
from pathlib import Path

import yaml

# streaming imports torchvision, from which nothing is needed here and which has no build for every torch
if importlib.util.find_spec("torchvision") is None:
    for name in ("", ".datasets", ".transforms", ".transforms.functional"):
        module = types.ModuleType(f"torchvision{name}")
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.VisionDataset = module.to_tensor = object
        sys.modules[module.__name__] = module

from streaming import MDSWriter, Stream, StreamingDataset


def drawn(folder: str, domains: dict[str, tuple[int, list[int]]]) -> Counter:
    streams = yaml.safe_load(Path(folder, "mosaicml-streams.yaml").read_text())["streams"]
    for name, (token, lengths) in domains.items():
        streams[name]["local"] = f"{folder}/{streams[name]['local']}"
        with MDSWriter(out=streams[name]["local"], columns={"token": "int", "length": "int"}) as writer:
            for length in lengths:
                writer.write({"token": token, "length": length})
    dataset = StreamingDataset(
        streams=[Stream(**stream) for stream in streams.values()], batch_size=1, epoch_size=3000, shuffle=True
    )
    found = Counter()
    for sample in dataset:
        found[sample["token"]] += sample["length"]
    return found


print(json.dumps({folder: drawn(folder, domains) for folder, domains in json.loads(sys.argv[1]).items()}))
