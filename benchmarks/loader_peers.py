"""How each loader serves the mixture: rows of 1,024 tokens as int64, 512 to a batch, drawn by the weights.

Each class imports its library when it is made. All of them run in this process, without workers.
"""

# ruff: noqa: D102 -- the methods are those of Contestant

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.loader_data import BATCH_SIZE, SEED, SEQUENCE_LENGTH, Data

Batch = tuple[Any, Any]  # input_ids int64[512, 1024], domain_ids int[512]


class Contestant:
    """A loader over `Data`."""

    def __init__(self, data: Data) -> None:
        self.data = data

    @classmethod
    def prepare(cls, data: Data) -> None:
        """Write the layout that the library reads, if it needs one of its own. Not timed."""

    def batches(self) -> Iterator[Batch]:
        """Yield batches from the present position on."""
        raise NotImplementedError

    def state(self) -> Any:
        """Where the batches have got to; None where the library cannot say."""
        return None

    def load(self, state: Any) -> None:
        """Go on from ``state``."""
        raise NotImplementedError


class RowSource:
    """One row an item, as map-style libraries want it: (int64[L], domain id) by position in tokens.bin."""

    def __init__(self, data: Data) -> None:
        self._tokens = data.tokens()
        self._domain_ids = np.repeat(np.arange(len(data.rows)), list(data.rows.values()))

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self._tokens[index].astype(np.int64), int(self._domain_ids[index])


class WeightedSampler:
    """Positions drawn by domain weight, in random order within a domain, all of them drawn up front; resumable."""

    def __init__(self, data: Data, *, num_draws: int = 1_000_000) -> None:
        rng = np.random.default_rng(SEED)
        domains = rng.choice(len(data.rows), size=num_draws, p=data.probabilities)
        self._positions = np.empty(num_draws, np.int64)
        for index, (first, count) in enumerate(zip(data.first_rows, data.rows.values(), strict=True)):
            chosen = np.flatnonzero(domains == index)
            epochs = [rng.permutation(count) for _ in range(len(chosen) // count + 1)]
            self._positions[chosen] = first + np.concatenate(epochs)[: len(chosen)]
        self._next = 0

    def __iter__(self) -> Iterator[int]:
        while self._next < len(self._positions):
            self._next += 1
            yield int(self._positions[self._next - 1])

    def __len__(self) -> int:
        return len(self._positions)

    def state_dict(self) -> dict[str, int]:
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._next = state["next"]


class StatefulDataLoaderPeer(Contestant):
    """torchdata's StatefulDataLoader over a memory map: one row a __getitem__, default collate, own sampler."""

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        from torchdata.stateful_dataloader import StatefulDataLoader

        self._loader = StatefulDataLoader(RowSource(data), batch_size=BATCH_SIZE, sampler=WeightedSampler(data))

    def batches(self) -> Iterator[Batch]:
        yield from self._loader

    def state(self) -> Any:
        return self._loader.state_dict()

    def load(self, state: Any) -> None:
        self._loader.load_state_dict(state)


class DatasetsPeer(Contestant):
    """Hugging Face datasets: what the two ways of interleaving share."""

    @classmethod
    def prepare(cls, data: Data) -> None:
        import datasets

        features = datasets.Features(
            {
                "input_ids": datasets.Sequence(datasets.Value("int64"), length=SEQUENCE_LENGTH),
                "domain_id": datasets.Value("int64"),
            }
        )
        for index in range(len(data.rows)):
            folder = data.sub_folder("arrow", index)
            if not folder.exists():
                tokens = data.domain_tokens(index).astype(np.int64)
                columns = {"input_ids": list(tokens), "domain_id": np.full(len(tokens), index)}
                datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder)

    def _domains(self) -> list[Any]:
        import datasets

        folders = [self.data.sub_folder("arrow", index) for index in range(len(self.data.rows))]
        return [datasets.load_from_disk(folder) for folder in folders]

    def _interleave(self, domains: list[Any]) -> Any:
        import datasets

        return datasets.interleave_datasets(
            domains, probabilities=self.data.probabilities.tolist(), seed=SEED, stopping_strategy="all_exhausted"
        )


class DatasetsIterable(DatasetsPeer):
    """interleave_datasets over IterableDatasets, as upstream does; batched by a DataLoader."""

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        streams = [dataset.to_iterable_dataset().shuffle(SEED, buffer_size=1000) for dataset in self._domains()]
        self._dataset = self._interleave(streams).with_format("torch")

    def batches(self) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        for batch in DataLoader(self._dataset, batch_size=BATCH_SIZE):
            yield batch["input_ids"], batch["domain_id"]

    def state(self) -> Any:
        return self._dataset.state_dict()

    def load(self, state: Any) -> None:
        self._dataset.load_state_dict(state)


class DatasetsMap(DatasetsPeer):
    """interleave_datasets over map-style Datasets, whose draws are all made up front; batched by a DataLoader."""

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        self._dataset = self._interleave([d.shuffle(SEED) for d in self._domains()]).with_format("torch")

    def batches(self) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        for batch in DataLoader(self._dataset, batch_size=BATCH_SIZE):
            yield batch["input_ids"], batch["domain_id"]


class Grain(Contestant):
    """Grain's MapDataset.mix of shuffled, repeated sources."""

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        import grain

        source = RowSource(data)
        domains = [
            grain.MapDataset.source(_Slice(source, int(first), count)).shuffle(seed=SEED + index).repeat()
            for index, (first, count) in enumerate(zip(data.first_rows, data.rows.values(), strict=True))
        ]
        mixed = grain.MapDataset.mix(domains, weights=data.probabilities.tolist()).batch(BATCH_SIZE)
        self._iterator = iter(mixed.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))

    def batches(self) -> Iterator[Batch]:
        import torch

        for tokens, domain_ids in self._iterator:
            yield torch.from_numpy(tokens), domain_ids

    def state(self) -> Any:
        return self._iterator.get_state()

    def load(self, state: Any) -> None:
        self._iterator.set_state(state)


class _Slice:
    def __init__(self, source: RowSource, first: int, count: int) -> None:
        self._source, self._first, self._count = source, first, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self._source[self._first + int(index)]
