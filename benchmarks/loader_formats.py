"""Peers that read formats of their own: see `loader_peers`."""

# ruff: noqa: D102 -- the methods are those of Contestant

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loader_data import BATCH_SIZE, SEED, SEQUENCE_LENGTH, VOCAB_SIZE, Data
from benchmarks.loader_peers import Batch, Contestant


class LitData(Contestant):
    """litdata's CombinedStreamingDataset, which ends when the first domain is used up."""

    @classmethod
    def prepare(cls, data: Data) -> None:
        import litdata

        for index in range(len(data.rows)):
            folder = data.sub_folder("litdata", index)
            if not (folder / "index.json").exists():
                row = partial(_litdata_row, data, index)
                positions = list(range(data.rows[data.names[index]]))
                litdata.optimize(row, positions, str(folder), chunk_bytes="64MB", num_workers=1, verbose=False)

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        import litdata

        folders = [data.sub_folder("litdata", index) for index in range(len(data.rows))]
        domains = [litdata.StreamingDataset(str(folder), shuffle=True, seed=SEED) for folder in folders]
        mixed = litdata.CombinedStreamingDataset(
            domains, seed=SEED, weights=data.probabilities.tolist(), iterate_over_all=False
        )
        # drop_last would cut every domain to a multiple of the batch, and small ones to nothing
        self._loader = litdata.StreamingDataLoader(mixed, batch_size=BATCH_SIZE, num_workers=0, drop_last=False)

    def batches(self) -> Iterator[Batch]:
        for batch in self._loader:
            if len(batch["domain_id"]) == BATCH_SIZE:
                yield batch["input_ids"].long(), batch["domain_id"].numpy()

    def state(self) -> Any:
        return self._loader.state_dict()

    def load(self, state: Any) -> None:
        self._loader.load_state_dict(state)


def _litdata_row(data: Data, index: int, position: int) -> dict[str, Any]:
    return {"input_ids": data.domain_tokens(index)[position], "domain_id": index}


class Streaming(Contestant):
    """mosaicml-streaming's StreamingDataset of weighted streams."""

    @classmethod
    def prepare(cls, data: Data) -> None:
        import streaming

        columns = {"input_ids": f"ndarray:uint16:{SEQUENCE_LENGTH}", "domain_id": "int"}
        for index in range(len(data.rows)):
            folder = data.sub_folder("mds", index)
            if not (folder / "index.json").exists():
                with streaming.MDSWriter(out=str(folder), columns=columns) as writer:
                    for row in data.domain_tokens(index):
                        writer.write({"input_ids": row, "domain_id": index})

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        import streaming

        streaming.base.util.clean_stale_shared_memory()
        streams = [
            streaming.Stream(local=str(data.sub_folder("mds", index)), proportion=float(probability))
            for index, probability in enumerate(data.probabilities)
        ]
        dataset = streaming.StreamingDataset(
            streams=streams, batch_size=BATCH_SIZE, shuffle=True, shuffle_seed=SEED, epoch_size=sum(data.rows.values())
        )
        self._loader = streaming.StreamingDataLoader(dataset, batch_size=BATCH_SIZE, num_workers=0)

    def batches(self) -> Iterator[Batch]:
        for batch in self._loader:
            yield batch["input_ids"].long(), batch["domain_id"].numpy()

    def state(self) -> Any:
        return self._loader.state_dict()

    def load(self, state: Any) -> None:
        self._loader.load_state_dict(state)


class Megatron(Contestant):
    """megatron-core's BlendedDataset, over the files of our own store, which are Megatron's format."""

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
        from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

        config = GPTDatasetConfig(
            random_seed=SEED,
            sequence_length=SEQUENCE_LENGTH,
            blend_per_split=[(self._prefixes(), data.probabilities.tolist()), None, None],
            tokenizer=_Tokenizer(),
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
        )
        sizes = [sum(data.rows.values()), None, None]
        self._dataset = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()[0]
        self._first_batch = 0

    def _prefixes(self) -> list[str]:
        store = self.data.folder / "store"
        domains = json.loads((store / "manifest.json").read_text())["domains"]
        files = {domain["name"]: domain["train"][0]["file"] for domain in domains}
        return [str(Path(store, files[name])) for name in self.data.names]

    def batches(self) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        positions = range(self._first_batch * BATCH_SIZE, len(self._dataset))
        for batch in DataLoader(self._dataset, batch_size=BATCH_SIZE, sampler=positions, drop_last=True):
            self._first_batch += 1
            yield batch["tokens"], np.asarray(batch["dataset_id"])

    def state(self) -> Any:
        return {"batches": self._first_batch}

    def load(self, state: Any) -> None:
        self._first_batch = state["batches"]


class _Tokenizer:
    """What megatron-core asks a tokenizer for."""

    vocab_size, eod, pad = VOCAB_SIZE, 0, -1
    unique_identifiers = {"class": "benchmark"}  # noqa: RUF012 -- read, never written
