"""The source mixture of an export, built into OLMo-core's data set: names, and instances by token id."""

import json
import sys
from collections import Counter

from olmo_core.data import NumpyDatasetDType, NumpyFSLDatasetConfig, TokenizerConfig
from olmo_core.data.source_mixture import SourceMixtureDatasetConfig, SourceMixtureList


def drawn(folder: str, num_tokens: int) -> list:
    mixture = SourceMixtureDatasetConfig(
        source_list=SourceMixtureList.from_yaml(f"{folder}/olmo-core-mixture.yaml"),
        requested_tokens=num_tokens,
        global_batch_size=160,
        render_tables=False,
        quiet=True,
    )
    dataset = NumpyFSLDatasetConfig.from_src_mix(
        mixture,
        tokenizer=TokenizerConfig(vocab_size=1000, eos_token_id=0, pad_token_id=0),
        sequence_length=16,
        dtype=NumpyDatasetDType.uint16,
        work_dir=f"{folder}/work",
    ).build()
    dataset.prepare()
    names = [source.source_name for source in mixture.source_list.sources]
    return [names, Counter(int(dataset[i]["input_ids"].max()) for i in range(len(dataset)))]


print(json.dumps({folder: drawn(folder, int(folder)) for folder in sys.argv[1:]}))
