"""nanotron: folders of token files with weights, which count sequences of one length.

``data_stages[].data.dataset`` with dataset_folder and dataset_weights, both lists (NanosetDatasetsArgs in
src/nanotron/config/config.py, docs/nanoset.md, examples/config_resume_training.yaml; 2411b022; the dictionary of
docs/nanoset.md is no longer read). A sample is ``sequence_length`` + 1 tokens, and samples are drawn so that each
folder's share is its weight (build_nanoset_index_helper in src/nanotron/data/nanoset.py). A folder holds files named
``*.ds``: headerless token ids, which our ``.bin`` files are, so links are enough.
"""

from __future__ import annotations

import shlex

from doremi import files
from doremi.exporters.describe import Export, comment, yaml_text
from doremi.exporters.mixture import Mixture, Unit

FOLDER = "nanotron"  # where the links are made


def nanotron(mixture: Mixture, unit: Unit) -> Export:
    """A stage of the configuration, and a shell script that makes the folders."""
    folders = {domain.name: f"{FOLDER}/{files.encode_name(domain.name)}" for domain in mixture.domains}
    dataset = {
        "dataset_folder": list(folders.values()),
        "dataset_weights": [domain.weight for domain in mixture.domains],
        "vocab_size": mixture.tokenizer.vocab_size,
        "token_size_in_bytes": mixture.token_bytes,
    }
    stage = {
        "name": "domain weights",
        "start_training_step": 1,
        "data": {"seed": 42, "num_loading_workers": 1, "dataset": dataset},
    }
    usage = [
        "use: these data_stages in the configuration; nanotron-links.sh, which an export to a folder brings along, "
        "makes the folders"
    ]
    named = {
        "nanotron.yaml": comment(mixture, unit, usage) + yaml_text({"data_stages": [stage]}),
        "nanotron-links.sh": _links(mixture, folders),
    }
    return Export(named, mixture.warnings)


def _links(mixture: Mixture, folders: dict[str, str]) -> str:
    lines = ["#!/bin/sh", "# Run where nanotron will be started: a folder of links for each domain.", "set -e"]
    for domain in mixture.domains:
        folder = folders[domain.name]
        lines.append(f"mkdir -p {shlex.quote(folder)}")
        for number, shard in enumerate(domain.shards):
            lines.append(f"ln -sf {shlex.quote(shard.prefix + '.bin')} {shlex.quote(f'{folder}/{number:05d}.ds')}")
    return "\n".join(lines) + "\n"
