"""Domain weights in the formats of other training stacks: pure functions from a mixture to text. Imports no torch.

`from_corpus.from_store` makes a mixture of weights and a corpus.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from doremi.errors import InputError, check_choice
from doremi.exporters.describe import Export
from doremi.exporters.levanter import levanter
from doremi.exporters.megatron import megatron, megatron_bridge
from doremi.exporters.mixture import Domain, Mixture, Shard, TokenizerFacts, Unit
from doremi.exporters.mosaicml import mosaicml
from doremi.exporters.nanotron import nanotron
from doremi.exporters.olmo_core import olmo_core
from doremi.exporters.python_modules import hugging_face, litgpt, torchtitan
from doremi.exporters.retokenize import count_again, retokenized
from doremi.exporters.tables import table, upstream

__all__ = [
    "FORMATS", "Domain", "Export", "Format", "Mixture", "Shard", "TokenizerFacts", "Unit", "count_again", "export",
    "retokenized",
]  # fmt: skip


@dataclass(frozen=True)
class Format:
    """A stack's format."""

    stack: str
    goes: str  # where the export goes in that stack
    units: tuple[Unit, ...]  # what its numbers can count; the first unless asked otherwise
    render: Callable[[Mixture, Unit], Export]
    names_files: bool = False  # of the corpus, which hold the ids of its own tokenizer


FORMATS: dict[str, Format] = {
    "megatron": Format("Megatron-LM", "--per-split-data-args-path", ("sequences",), megatron, names_files=True),
    "megatron-bridge": Format(
        "Megatron-Bridge, NeMo", "dataset.blend_per_split", ("sequences",), megatron_bridge, names_files=True
    ),
    "mosaicml": Format("MosaicML streaming", "Stream(proportion=...)", ("sequences", "documents"), mosaicml),
    "litgpt": Format("litgpt, litdata", "CombinedStreamingDataset(weights=...)", ("sequences",), litgpt),
    "levanter": Format("Levanter", "data.train_weights", ("sequences",), levanter),
    "nanotron": Format("nanotron", "data_stages", ("sequences",), nanotron, names_files=True),
    "torchtitan": Format("torchtitan, grain", "DatasetMixConfig, mix", ("sequences", "documents"), torchtitan),
    "olmo-core": Format("OLMo-core", "SourceMixtureList", ("tokens",), olmo_core, names_files=True),
    "hf": Format(
        "Hugging Face datasets", "interleave_datasets(probabilities=...)", ("documents", "sequences"), hugging_face
    ),
    "upstream": Format("sangmichaelxie/doremi", "its configs folder", ("sequences",), upstream),
    "csv": Format("any", "a table of every counting", ("tokens",), table),
}


def export(mixture: Mixture, format_id: str, *, unit: Unit | None = None) -> Export:
    """``mixture`` in the format of a stack.

    Args:
        mixture: what `from_store` makes, or one made by hand.
        format_id: one of `FORMATS`.
        unit: what a draw is in the data that will be trained on, where the stack leaves that open.

    Raises:
        InputError: no such format, a unit that the stack does not count, or a format that names files which the corpus
            has not got.
    """
    check_choice("format", format_id, FORMATS)
    chosen = FORMATS[format_id]
    unit = unit or chosen.units[0]
    if unit not in chosen.units:
        raise InputError(f"unit is {unit!r}; {format_id} counts {' or '.join(chosen.units)}")
    if chosen.names_files and not all(domain.shards for domain in mixture.domains):
        raise InputError(
            f"{mixture.corpus}: {format_id} names the .bin and .idx files of a corpus, and one that is read in place "
            "has none; prepare it (the folder as one of corpus.inputs), or export csv"
        )
    return chosen.render(mixture, unit)
