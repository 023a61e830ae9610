"""Levanter: ``train_weights``, which count sequences of one length.

``data.train_weights`` maps the names of ``data.configs`` to weights, which are normalised
(docs/guides/Training-Data-Guide.md; LMMixtureDatasetConfig in src/levanter/data/text.py; 9263f81e). Of every block of
``mixture_block_size`` sequences a domain gets ⌊weight · size⌋ and the largest one gets the rest (MixtureDataset in
src/levanter/data/mixture.py), so a domain below 1 / size is never drawn. The
default size is 2,048; it must stay below 2¹⁶.
"""

from __future__ import annotations

from doremi.exporters.describe import Export, comment, yaml_text
from doremi.exporters.mixture import Mixture, Unit

DEFAULT_BLOCK_SIZE = 2048
MAX_BLOCK_SIZE = 1 << 15
_MIN_DRAWS = 10  # of the smallest domain in a block: its share is then within a tenth of its weight


def levanter(mixture: Mixture, unit: Unit) -> Export:
    """The keys to merge into ``data``."""
    weights = mixture.draws(unit)
    size = block_size(min(weights.values()))
    missing = [name for name, weight in weights.items() if weight * size < 1]
    if missing:
        mixture = mixture.warn(
            f"below 1/{size} of the sequences, so never drawn by Levanter: {', '.join(map(repr, missing))}"
        )
    usage = ["use: in the section data; its configs must have these names, and its tokenizer be the one above"]
    content = {"data": {"mixture_block_size": size, "train_weights": weights}}
    return Export({"levanter.yaml": comment(mixture, unit, usage) + yaml_text(content)}, mixture.warnings)


def block_size(smallest_weight: float) -> int:
    """The smallest power of two, from Levanter's default to the largest it takes, that draws each domain 10 times."""
    size = DEFAULT_BLOCK_SIZE
    while size < MAX_BLOCK_SIZE and size * smallest_weight < _MIN_DRAWS:
        size *= 2
    return size
