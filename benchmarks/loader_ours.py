"""Our loader, and the bound: the same rows with everything but the reading worked out beforehand."""

# ruff: noqa: D102 -- the methods are those of Contestant

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.loader_data import BATCH_SIZE, SEED, SEQUENCE_LENGTH, VOCAB_SIZE, Data
from benchmarks.loader_peers import Batch, Contestant


class Doremi(Contestant):
    """MixtureLoader over a TokenStore."""

    @classmethod
    def prepare(cls, data: Data) -> None:
        from doremi import files
        from doremi.corpus.preparing.shards import ShardWriter
        from doremi.corpus.storing import manifest
        from doremi.corpus.tokenizing.tokenizers import TokenizerEntry

        store = data.folder / "store"
        if (store / manifest.NAME).is_file():
            return
        with ShardWriter(store, ordinal=0, dtype="uint16") as writer:
            for index, name in enumerate(data.names):
                for row in data.domain_tokens(index):
                    writer.append(name, "train", row, num_bytes=0)
            shards = {shard.domain: {shard.split: [shard.entry]} for shard in writer.finish()}
        tokenizer = TokenizerEntry(digest="none", eos_token="", eos_token_id=0, vocab_size=VOCAB_SIZE)
        content = manifest.build(tokenizer=tokenizer, dtype="uint16", domains=shards, inputs=[], settings={})
        files.write_json(store / manifest.NAME, content)

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        from doremi.corpus import TokenStore
        from doremi.mixture import MixtureLoader, MixtureSchedule, RepetitionLimit

        store = TokenStore.open(data.folder / "store")
        self.schedule = MixtureSchedule(
            {name: store.num_sequences(name, SEQUENCE_LENGTH) for name in store.names},
            weights=data.weights,
            global_batch_size=BATCH_SIZE,
            seed=SEED,
            repetition=RepetitionLimit(float("inf")),
        )
        self.loader = MixtureLoader(store, self.schedule, sequence_length=SEQUENCE_LENGTH, micro_batch_size=BATCH_SIZE)
        # the store sorts its domains by name, the data has them in the order of the published file
        self._to_data_id = np.array([data.names.index(name) for name in self.schedule.names])

    def batches(self) -> Iterator[Batch]:
        for batch in self.loader:
            yield batch["input_ids"], self._to_data_id[batch["domain_ids"].numpy()]

    def state(self) -> Any:
        return json.loads(json.dumps(self.loader.state_dict()))

    def load(self, state: Any) -> None:
        self.loader.load_state_dict(state)


class Bound(Contestant):
    """One gather per batch from one memory map, with all positions known: what no loader can be faster than."""

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        from doremi.mixture import MixtureSchedule, RepetitionLimit

        schedule = MixtureSchedule(
            data.rows,
            weights=data.weights,
            global_batch_size=BATCH_SIZE,
            seed=SEED,
            repetition=RepetitionLimit(float("inf")),
        )
        plans = [schedule.next_batch() for _ in range(300)]
        self._plans = [(data.first_rows[plan.domain_ids] + plan.rows, plan.domain_ids) for plan in plans]
        self._tokens = data.tokens()

    def batches(self) -> Iterator[Batch]:
        import torch

        for positions, domain_ids in self._plans:
            yield torch.from_numpy(self._tokens.take(positions, axis=0)).long(), domain_ids
