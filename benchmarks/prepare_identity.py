"""Whether all give the same token ids on the slice: ``python -m benchmarks.prepare_identity FOLDER``; prints JSON.

Compared are the streams of every domain as our preparation stores them, with either backend, and as upstream's way
saves them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.prepare_ours import config
from benchmarks.prepare_peers import filter_per_domain
from benchmarks.prepare_text import Text
from doremi.corpus import prepare
from doremi.corpus.tokenizing.backends import Backend

Streams = dict[str, np.ndarray]


def ours(text: Text, out: Path, backend: Backend) -> Streams:
    """Every token of each domain; a made-up document a domain is held out, so that all of the slice is for training."""
    held_out = out / f"held-out-{backend}.jsonl"
    domains = text.domains(text.domain_counts[-1])
    records = [{"text": f"held out of {name}", "meta": {"pile_set_name": name}} for name in domains]
    held_out.write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe = config(text, backend=backend)
    source = recipe.inputs[0].model_copy(update={"path": str(held_out)})
    store = prepare(recipe.model_copy(update={"held_out_inputs": [source]}), out / backend)
    return {name: store.rows(name, np.array([0]), store.num_tokens(name)).tokens[0] for name in domains}


def upstreams(text: Text, out: Path) -> Streams:
    """What filter-per-domain saved."""
    import datasets

    domains = text.domains(text.domain_counts[-1])
    filter_per_domain(text, out, num_domains=len(domains))()
    saved = {name: datasets.load_from_disk(str(out / "saved" / name)) for name in domains}
    return {name: np.concatenate(dataset.with_format("numpy")["input_ids"][:]) for name, dataset in saved.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    text = Text(parser.parse_args().folder)
    with tempfile.TemporaryDirectory(dir=text.folder) as scratch:
        reference = upstreams(text, Path(scratch))
        backends: tuple[Backend, ...] = ("tokenizers", "fastokens")
        identical = all(
            np.array_equal(reference[name], stream)
            for backend in backends
            for name, stream in ours(text, Path(scratch), backend).items()
        )
    print(json.dumps({"ids_identical": identical, "tokens": sum(map(len, reference.values()))}))


if __name__ == "__main__":
    main()
