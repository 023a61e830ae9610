"""Megatron-LM and Megatron-Bridge: a blend of file prefixes, whose weights count sequences of one length.

Megatron-LM: ``--per-split-data-args-path FILE`` reads JSON with the keys train, valid and test, each a list "weight
prefix weight prefix ..." or null; ``--data-args-path FILE`` reads the same list of one blend as words
(megatron/training/arguments.py, group "data and dataloader"; get_blend_and_blend_per_split in
megatron/training/utils; get_blend_from_list in megatron/core/datasets/utils.py; d98e8a64). `BlendedDataset` draws
samples of ``seq_length`` + 1 tokens in proportion to the weights (megatron/core/datasets/readme.md).

Megatron-Bridge: ``dataset.blend_per_split`` of its ``GPTDatasetConfig`` is three pairs (prefixes, weights), for train,
valid and test, and goes to Megatron Core unchanged; ``blend`` and ``split`` must then be None
(docs/training/data-preparation.md, docs/recipe-usage.md "YAML", src/megatron/bridge/training/config.py; 067f987d).
NeMo 2.0's ``PreTrainingDataModule(paths=...)`` takes the list of Megatron-LM's "train"
(docs/nemo2-migration-guide.md).
"""

from __future__ import annotations

import json

from doremi.exporters.describe import Export, comment, record, yaml_text
from doremi.exporters.mixture import Domain, Mixture, Unit


def megatron(mixture: Mixture, unit: Unit) -> Export:
    """The blend as JSON, and its training part as words.

    Validation draws from the held-out files of the same domains by their size: Megatron's ``--split`` would take
    training documents for it.
    """
    weights, held_out = _training(mixture), _held_out(mixture)
    words = [word for prefix, weight in weights.items() for word in (repr(weight), prefix)]
    blend = {"train": words, "valid": held_out or None, "test": None, "doremi": record(mixture, unit)}
    named = {"megatron-blend.json": json.dumps(blend, indent=1, ensure_ascii=False) + "\n"}
    if any(word.split() != [word] for word in words):
        mixture = mixture.warn(
            "no megatron-data-args.txt: the path of the corpus contains white space, which --data-args-path cannot read"
        )
    else:
        named["megatron-data-args.txt"] = " ".join(words) + "\n"
    return Export(named, mixture.warnings)


def megatron_bridge(mixture: Mixture, unit: Unit) -> Export:
    """An override of ``dataset``, for OmegaConf.merge or ConfigContainer."""
    weights, held_out = _training(mixture), _held_out(mixture)
    per_split = [[list(weights), list(weights.values())], [held_out, None] if held_out else None, None]
    usage = ["use: OmegaConf.merge(recipe, OmegaConf.load(FILE)), or as dataset.blend_per_split of a ConfigContainer"]
    content = {"dataset": {"data_path": None, "blend": None, "split": None, "blend_per_split": per_split}}
    return Export({"megatron-bridge.yaml": comment(mixture, unit, usage) + yaml_text(content)}, mixture.warnings)


def _training(mixture: Mixture) -> dict[str, float]:
    return {prefix: weight for domain in mixture.domains for prefix, weight in _by_prefix(domain).items()}


def _by_prefix(domain: Domain) -> dict[str, float]:
    """A domain's weight shared out over its files by their tokens: a small file is not repeated sooner than a large."""
    total = sum(shard.tokens for shard in domain.shards)
    return {shard.prefix: domain.weight * shard.tokens / total for shard in domain.shards}


def _held_out(mixture: Mixture) -> list[str]:
    return [shard.prefix for domain in mixture.domains for shard in domain.held_out]
