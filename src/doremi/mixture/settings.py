"""How a corpus is read into batches, apart from the sampling weights, the batch size and the seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from doremi.mixture.permutation import RowOrder, Shuffle
from doremi.mixture.repetition import RepetitionLimit
from doremi.mixture.schedule import MixtureSchedule, Mode

if TYPE_CHECKING:
    from doremi.mixture.gather import Documents, RowStore
    from doremi.mixture.loader import MixtureLoader, Reading


@dataclass(frozen=True)
class MixtureSettings:
    """What every run on a corpus shares; one place where schedules and loaders are made from it.

    Args:
        sequence_length: L, tokens in a row.
        mode: ``balanced`` or ``iid``; see `MixtureSchedule`.
        row_order: `Shuffle`, or `BlockShuffle` where random reads are slow.
        repetition: how often a domain may be repeated.
        documents: ``joined``, or ``separate``: attention stays within a document; see `MixtureLoader`.
        reading: ``on_demand``, or ``ahead`` in a background thread; see `MixtureLoader`.
    """

    sequence_length: int = 1024
    mode: Mode = "balanced"
    row_order: RowOrder = field(default_factory=Shuffle)
    repetition: RepetitionLimit = field(default_factory=RepetitionLimit)
    documents: Documents = "joined"
    reading: Reading = "on_demand"

    def schedule(
        self,
        store: RowStore,
        names: tuple[str, ...],
        *,
        weights: Mapping[str, float],
        global_batch_size: int,
        seed: int,
    ) -> MixtureSchedule:
        """The schedule over ``names``, domains of ``store`` whose order gives the domain ids."""
        return MixtureSchedule(
            {name: store.num_sequences(name, self.sequence_length) for name in names},
            weights=weights,
            global_batch_size=global_batch_size,
            seed=seed,
            mode=self.mode,
            order=self.row_order,
            repetition=self.repetition,
        )

    def loader(
        self, store: RowStore, schedule: MixtureSchedule, *, micro_batch_size: int, rank: int = 0, world_size: int = 1
    ) -> MixtureLoader:
        """The loader of one rank over a schedule of these settings."""
        from doremi.mixture.loader import MixtureLoader

        return MixtureLoader(
            store,
            schedule,
            sequence_length=self.sequence_length,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world_size=world_size,
            documents=self.documents,
            reading=self.reading,
        )
