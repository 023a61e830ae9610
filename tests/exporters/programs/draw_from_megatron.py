"""Blends of an export, as Megatron-LM and Megatron-Bridge hand them to megatron-core: samples by token id."""

import json
import sys
from collections import Counter
from pathlib import Path

import yaml
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import get_blend_from_list


class Tokenizer:
    eod, pad, vocab_size = 0, 0, 1000
    unique_identifiers = {"name": "test"}  # noqa: RUF012


def blend_per_split(path: str) -> list:
    text = Path(path).read_text()
    if path.endswith(".json"):
        content = json.loads(text)
        return [get_blend_from_list(content[split]) for split in ("train", "valid", "test")]
    if path.endswith(".txt"):
        return [get_blend_from_list(text.split()), None, None]
    return yaml.safe_load(text)["dataset"]["blend_per_split"]


def drawn(path: str) -> list[Counter]:
    per_split = blend_per_split(path)
    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=16,
        blend_per_split=per_split,
        tokenizer=Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    sizes = [2000, 8 if per_split[1] else None, None]
    splits = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()
    return [Counter(int(sample["tokens"].max()) for sample in split or []) for split in splits[:2]]


print(json.dumps([drawn(path) for path in sys.argv[1:]]))
