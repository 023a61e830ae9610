"""A rank's share of every global batch, as tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from doremi.errors import InputError, check_choice
from doremi.mixture.gather import Documents, Gathered, RowStore, gather, to_tensors
from doremi.mixture.read_ahead import ReadAhead
from doremi.mixture.schedule import Batch, MixtureSchedule, Plan
from doremi.mixture.state import ScheduleState, refuse_changes

Reading = Literal["on_demand", "ahead"]


class _Share(NamedTuple):
    """A global batch and this rank's rows of it."""

    before: ScheduleState  # what the plan was made from
    plan: Plan
    rows: Gathered


class MixtureLoader(IterableDataset[dict[str, torch.Tensor]]):
    """An endless stream of the micro-batches of one rank.

    Row i of a rank's micro-batch m is row ``(m · world_size + rank) · micro_batch_size + i`` of the global batch. So
    any number of ranks draws what one would, and another number can go on after any micro-step. Iterating again goes
    on where the last iteration stopped. In memory are the rank's rows of one global batch, as stored (2 or 4 bytes a
    token), and of two with ``reading="ahead"``; twice that while they are read.

    The stream is the rank's slice already: neither accelerate nor a distributed sampler may shard it again. A
    `torch.utils.data.DataLoader` around it takes ``batch_size=None`` and no worker processes.

    Args:
        store: where the rows are read from, such as `doremi.corpus.TokenStore`.
        schedule: which rows; it advances with the loader.
        sequence_length: L, tokens in a row; the schedule's numbers of rows must be those of the store at L.
        micro_batch_size: B, rows that this rank yields at a time.
        rank: of this process.
        world_size: number of processes.
        documents: ``joined``: a row is one text; ``separate``: adds ``position_ids`` that restart at every EOS.
        reading: ``on_demand``, or ``ahead``: a background thread reads the rows of the next global batch as it will be
            if the weights stay. New weights still apply to the very next batch: it is planned again, and what is not
            among the rows that were read ahead is read on demand. A domain's next rows are the same for any weights, so
            of one process that is little; of many, whose shares of the batch change, it is most.

    Raises:
        InputError: the global batch is not a multiple of world size × micro-batch, or the store has other rows.
    """

    def __init__(
        self,
        store: RowStore,
        schedule: MixtureSchedule,
        *,
        sequence_length: int,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        documents: Documents = "joined",
        reading: Reading = "on_demand",
    ) -> None:
        check_choice("documents", documents, get_args(Documents))
        check_choice("reading", reading, get_args(Reading))
        _check_division(schedule.global_batch_size, micro_batch_size, rank=rank, world_size=world_size)
        _check_rows(store, schedule, sequence_length)
        self.schedule = schedule
        self._store, self._documents = store, documents
        self._micro_batch_size, self._rank, self._world_size = micro_batch_size, rank, world_size
        self._num_micro_steps = schedule.global_batch_size // (world_size * micro_batch_size)
        self._settings: dict[str, Any] = {
            "sequence_length": sequence_length,
            "corpus": store.digest,
            "tokenizer": store.tokenizer_digest,
        }
        self._read_ahead = ReadAhead(self._read) if reading == "ahead" else None
        self._share: _Share | None = None
        self._taken = 0  # micro-batches of _share that were handed out

    @property
    def epochs_seen(self) -> dict[str, float]:
        """How many times each domain has been gone through by all ranks together, the current batch included."""
        return self.schedule.epochs_seen

    @property
    def delivered(self) -> dict[str, int]:
        """Rows of each domain drawn by all ranks together, the current batch included."""
        return self.schedule.delivered

    @property
    def row_counts(self) -> np.ndarray:
        """int64[k]: rows of each domain in the current global batch, over all ranks; zeros before the first."""
        domain_ids = self._share.plan.batch.domain_ids if self._share else np.zeros(0, np.int64)
        return np.bincount(domain_ids, minlength=len(self.schedule.names))

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Draw with other sampling weights from the very next global batch on; see `MixtureSchedule.set_weights`."""
        self.schedule.set_weights(weights)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield micro-batches; what is in them: see `doremi.mixture.gather.to_tensors`.

        Raises:
            InputError: in a worker process of a DataLoader; each would draw the same rows.
            RunFailedError: see `MixtureSchedule.next_batch`.
        """
        if get_worker_info() is not None:
            raise InputError("the mixture loader takes no worker processes: set num_workers=0, and reading='ahead'")
        while True:
            yield self._next_micro_batch()

    # ---- drawing ----

    def _next_micro_batch(self) -> dict[str, torch.Tensor]:
        share = self._unfinished or self._begin_batch()
        first = self._taken * self._micro_batch_size
        self._taken += 1  # before the caller gets it: a state saved from then on must not repeat it
        rows = Gathered(*(array[first : first + self._micro_batch_size] for array in share.rows))
        return to_tensors(rows, documents=self._documents, eos_token_id=self._store.eos_token_id)

    @property
    def _unfinished(self) -> _Share | None:
        """The global batch of which micro-batches are left to hand out."""
        return self._share if self._taken < self._num_micro_steps else None

    def _begin_batch(self) -> _Share:
        read = self._read_ahead or self._read
        self._share, self._taken = read(self.schedule.state), 0
        self.schedule.advance(self._share.plan)
        if self._read_ahead is not None:
            self._read_ahead.expect(self.schedule.state)
        return self._share

    def _read(self, state: ScheduleState, wrong: _Share | None = None) -> _Share:
        """The batch that follows ``state``, with this rank's rows. Moves nothing, so that it can be done in advance.

        ``wrong`` is a batch that was read for other weights, to take rows from.
        """
        plan = self.schedule.plan(state)
        shape = (self._num_micro_steps, self._world_size, self._micro_batch_size)
        own = Batch(*(array.reshape(shape)[:, self._rank].ravel() for array in plan.batch))
        length = self._settings["sequence_length"]
        rows = gather(
            self._store,
            own,
            names=self.schedule.names,
            sequence_length=length,
            already=None if wrong is None else wrong.rows,
        )
        return _Share(state, plan, rows)

    # ---- saving and loading ----

    def state_dict(self) -> dict[str, Any]:
        """JSON-able, the same on every rank: how far the caller has got, whatever was read ahead.

        After the last micro-batch of a step this is the beginning of the next global batch.
        """
        share = self._unfinished
        if share is None:
            return {"schedule": self.schedule.state_dict(), "rows_taken": 0, **self._settings}
        state = {
            "schedule": self.schedule.state_dict(at=share.before),
            "rows_taken": self._taken * self._world_size * self._micro_batch_size,
            **self._settings,
        }
        if self.schedule.state is not share.plan.after:  # weights set since this batch was drawn
            state["next_weights"] = self.schedule.weights
        return state

    def load_state_dict(self, state: Mapping[str, Any], *, accept: Collection[str] = ()) -> None:
        """Go on from where `state_dict` was taken, on any number of ranks, with any micro-batch and without replay.

        Args:
            state: what `state_dict` returned.
            accept: what may differ: ``corpus``, ``tokenizer``, ``sequence_length``, and what
                `MixtureSchedule.load_state_dict` accepts.

        Raises:
            InputError: not a state of a loader, or something that fixes the data differs; the message gives both
                values. Or it was saved within a global batch, at a row where these micro-batches do not begin.
        """
        if not {"schedule", "rows_taken"} <= state.keys():
            raise InputError(f"not a saved state of a mixture loader: it has only {', '.join(state) or 'nothing'}")
        refuse_changes(state, self._settings, accept=accept)
        taken = self._micro_steps_in(state["rows_taken"], accept)
        other_rows = {"sequence_counts"} if {"corpus", "sequence_length"} & set(accept) else set()
        self.schedule.load_state_dict(state["schedule"], accept={*accept, *other_rows})
        self._share = None
        if taken:
            self._begin_batch()
            self._taken = taken
        if "next_weights" in state:
            self.schedule.set_weights(state["next_weights"])

    def _micro_steps_in(self, num_rows: int, accept: Collection[str]) -> int:
        if num_rows and accept:
            raise InputError(
                f"the state was saved within a global batch, after {num_rows} of its rows; a change can only be "
                "accepted between global batches: resume without it, or save again after a whole one"
            )
        rows_of_micro_step = self._world_size * self._micro_batch_size
        if num_rows % rows_of_micro_step:
            raise InputError(
                f"the state was saved within a global batch, after {num_rows} of its rows, and a micro-step has "
                f"{self._world_size} × {self._micro_batch_size}: resume with a world size × micro-batch that divides "
                f"{num_rows}, or save again after a whole global batch"
            )
        return num_rows // rows_of_micro_step


def _check_division(global_batch_size: int, micro_batch_size: int, *, rank: int, world_size: int) -> None:
    if micro_batch_size < 1 or not 0 <= rank < world_size:
        raise InputError(f"micro-batch {micro_batch_size}, rank {rank} of {world_size}: 1 or more, and a rank below it")
    step = world_size * micro_batch_size
    below = global_batch_size // step * step
    if below != global_batch_size:
        nearest = f"{below} and {below + step}" if below else f"{step}"
        raise InputError(
            f"the global batch size {global_batch_size} is not a multiple of world size {world_size} × micro-batch "
            f"{micro_batch_size} = {step}; the nearest that is: {nearest}"
        )


def _check_rows(store: RowStore, schedule: MixtureSchedule, sequence_length: int) -> None:
    for name, count in schedule.sequence_counts.items():
        stored = store.num_sequences(name, sequence_length)
        if stored != count:
            raise InputError(
                f"domain {name!r} has {stored} rows of {sequence_length} tokens in the store, but {count} in the "
                "schedule; count them with store.num_sequences at the loader's sequence length"
            )
