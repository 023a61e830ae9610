"""MosaicML streaming: a ``Stream`` for each domain, whose ``proportion`` counts samples.

``Stream(proportion=...)`` is relative to the other streams and counts samples of the epoch
(docs/source/dataset_configuration/mixing_data_sources.md and Stream.apply_weights in streaming/base/stream.py;
89e7bb90). LLM Foundry's ``train_loader.dataset.streams`` is a mapping of names to the arguments of Stream, the layout
used here (build_text_dataloader in llmfoundry/data/text_data.py). Its data sets are of sequences where they were
written with ``--concat_tokens``, the way to pretrain; else of documents.
"""

from __future__ import annotations

from doremi import files
from doremi.exporters.describe import Export, comment, yaml_text
from doremi.exporters.mixture import Mixture, Unit

FOLDER = "mds"  # stands for wherever the streams are


def mosaicml(mixture: Mixture, unit: Unit) -> Export:
    """``streams``, by name of domain."""
    streams = {
        name: {"local": f"{FOLDER}/{files.encode_name(name)}", "proportion": proportion}
        for name, proportion in mixture.draws(unit).items()
    }
    usage = [
        "use: [Stream(**stream) for stream in yaml.safe_load(open(FILE))['streams'].values()], or as "
        "train_loader.dataset.streams of LLM Foundry;",
        "write the MDS folders that 'local' names, or put yours there ('remote' beside it)",
    ]
    return Export(
        {"mosaicml-streams.yaml": comment(mixture, unit, usage) + yaml_text({"streams": streams})}, mixture.warnings
    )
