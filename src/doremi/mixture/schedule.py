"""(seed, step, sampling weights, counters) to the domain and row of every sequence in a global batch. Pure NumPy."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from doremi.errors import InputError, RunFailedError
from doremi.mixture.apportion import FRACTION_BITS, MAX_BATCH_SIZE, ONE, Apportionment, apportion
from doremi.mixture.permutation import MAX_ROWS, RowOrder, Shuffle, stream, stream_key
from doremi.mixture.repetition import RepetitionLimit
from doremi.mixture.row_streams import RowStreams
from doremi.mixture.state import ScheduleState, refuse_changes
from doremi.weights import DomainWeights

logger = logging.getLogger(__name__)

ALGORITHM = "doremi-mixture-1"  # changes with the order of the data, so that a run is never continued in another one
Mode = Literal["balanced", "iid"]


class Batch(NamedTuple):
    """One global batch, in its order."""

    domain_ids: np.ndarray  # int64[b], indices into the schedule's names
    rows: np.ndarray  # int64[b], rows of those domains


class Plan(NamedTuple):
    """A global batch, and the state of the schedule after it."""

    batch: Batch
    after: ScheduleState


class MixtureSchedule:
    """Which rows each global batch consists of.

    A batch depends on the settings below and on a state of four numbers per domain, and on nothing else: every rank
    plans the same batches for itself, and going on with a run is a seek.

    Args:
        sequence_counts: rows of every domain; their order gives the domain ids.
        weights: sampling weights by domain, on any scale; a domain left out has weight 0.
        global_batch_size: b, rows of a batch over all ranks, at most 2^20.
        seed: in [0, 2^64); fixes the order of the rows and of each batch.
        mode: ``balanced``: error diffusion, so that what was delivered stays within about one row of what the weights
            ask for. ``iid``: independent draws, as in the paper; 140 to 240 rows off after 150,000.
        order: of the rows of a domain; default `Shuffle`, or `BlockShuffle` where random reads are slow.
        repetition: how often a domain may be repeated; default: a warning beyond 4 epochs.

    Raises:
        InputError: a weight of a domain that does not exist or has no rows, or a setting out of its range.
    """

    def __init__(
        self,
        sequence_counts: Mapping[str, int],
        *,
        weights: Mapping[str, float],
        global_batch_size: int,
        seed: int,
        mode: Mode = "balanced",
        order: RowOrder | None = None,
        repetition: RepetitionLimit | None = None,
    ) -> None:
        order = order or Shuffle()
        self.sequence_counts = {name: int(count) for name, count in sequence_counts.items()}
        self.settings: dict[str, Any] = {
            "algorithm": ALGORITHM,
            "mode": mode,
            "order": order.tag,
            "seed": seed,
            "global_batch_size": global_batch_size,
        }
        _check_settings(self.settings, self.sequence_counts)
        self.repetition = repetition or RepetitionLimit()
        self._num_rows = np.array(list(self.sequence_counts.values()), np.int64)
        self._row_limits = self.repetition.rows(self._num_rows)
        self._rows = RowStreams(self.sequence_counts, seed=seed, order=order)
        self._batch_key, self._draw_key = stream_key(seed, "batch order"), stream_key(seed, "iid draws")
        self._positions = np.arange(global_batch_size, dtype=np.uint64)
        self._state = ScheduleState.initial(self._checked(weights))

    @property
    def names(self) -> tuple[str, ...]:
        """Domain names; domain ids are indices into them."""
        return tuple(self.sequence_counts)

    @property
    def global_batch_size(self) -> int:
        """b, rows of a batch over all ranks."""
        return self.settings["global_batch_size"]

    @property
    def state(self) -> ScheduleState:
        """Where the schedule stands; an immutable value, so that an unchanged state is the same object."""
        return self._state

    @property
    def step(self) -> int:
        """Global batches drawn so far."""
        return self._state.step

    @property
    def weights(self) -> dict[str, float]:
        """What the next batch is drawn with; sums to 1."""
        return self._by_name(self._state.weights / ONE)

    @property
    def delivered(self) -> dict[str, int]:
        """Rows drawn so far, by domain."""
        return self._by_name(self._state.drawn)

    @property
    def epochs_seen(self) -> dict[str, float]:
        """How many times each domain has been gone through, fractions included; 0 for one without rows."""
        return self._by_name(self._state.drawn / np.maximum(self._num_rows, 1))

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Draw with other sampling weights from the very next batch on.

        Raises:
            InputError: see the class; the schedule is then as it was.
            RunFailedError: all weight is on domains that are exhausted.
        """
        self._state = self._reweighted(self._state, self._checked(weights))

    # ---- drawing ----

    def next_batch(self) -> Batch:
        """The next global batch, the same on every rank.

        Raises:
            RunFailedError: a domain would be repeated beyond a limit that is an error, or all domains are exhausted.
        """
        plan = self.plan(self._state)
        self.advance(plan)
        return plan.batch

    def plan(self, state: ScheduleState) -> Plan:
        """The batch that follows ``state``: a pure function, which does not move the schedule."""
        counts, after = self.plan_counts(state)
        rows = self._rows.take(state.drawn, counts, weights=after.weights / ONE)
        order = np.argsort(self._random_numbers(self._batch_key, state.step))  # distinct, so any sort gives this order
        return Plan(Batch(np.arange(len(counts)).repeat(counts)[order], rows[order]), after)

    def advance(self, plan: Plan) -> None:
        """Make ``plan`` the batch that was drawn last."""
        if self.repetition.action == "warn":
            passed = (self._state.drawn <= self._row_limits) & (plan.after.drawn > self._row_limits)
            for index in np.flatnonzero(passed):
                logger.warning("step %d: %s", plan.after.step, self._describe_repetition(int(index)))
        self._state = plan.after

    def plan_counts(self, state: ScheduleState) -> tuple[np.ndarray, ScheduleState]:
        """Rows of each domain in the batch that follows ``state`` (int64[k]), and the state after it."""
        while True:
            counts, credits = self._apportion(state)
            over = (counts > 0) & (state.drawn + counts > self._row_limits)
            if self.repetition.action == "warn" or not over.any():
                break
            if self.repetition.action == "error":
                message = self._describe_repetition(int(over.argmax()))
                raise RunFailedError(f"stopped before step {state.step + 1}: {message}")
            state = self._reweighted(replace(state, exhausted=state.exhausted | over), state.weights / ONE)
        return counts, replace(state, step=state.step + 1, drawn=state.drawn + counts, credits=credits)

    def _apportion(self, state: ScheduleState) -> Apportionment:
        if self.settings["mode"] == "balanced":
            return apportion(state.weights, state.credits, num_rows=self.global_batch_size)
        # b independent draws; which of them lands where in the batch is left to the batch order
        points = self._random_numbers(self._draw_key, state.step) >> (64 - FRACTION_BITS)
        domains = np.searchsorted(np.cumsum(state.weights), points.astype(np.int64), side="right")
        return Apportionment(np.bincount(domains, minlength=len(state.weights)), state.credits)

    def _random_numbers(self, key: np.ndarray, step: int) -> np.ndarray:
        """Of one step, all distinct: uint64[b]."""
        return stream(stream(key, np.array([step], np.uint64)), self._positions)

    # ---- saving and loading ----

    def state_dict(self, *, at: ScheduleState | None = None) -> dict[str, Any]:
        """JSON-able, under 2 kB for 22 domains: the settings that fix the order, and the state, or another one."""
        return {**self.settings, **(at or self._state).to_dict(self.sequence_counts)}

    def load_state_dict(self, state: Mapping[str, Any], *, accept: Collection[str] = ()) -> None:
        """Go on from where `state_dict` was taken; no batch is replayed.

        Args:
            state: what `state_dict` returned.
            accept: settings that may differ: ``seed``, ``mode``, ``order``, ``global_batch_size``,
                ``sequence_counts``. With other domains or rows, this schedule's own weights stay in force, and each
                domain goes on from the number of rows drawn, in its new order.

        Raises:
            InputError: not a state of a mixture, or a setting differs; the message gives both values.
        """
        if state.get("algorithm") != ALGORITHM:
            raise InputError(
                f"the saved state has data order {state.get('algorithm')!r}, this version of doremi has {ALGORITHM!r}: "
                "go on with the version that began the run, or begin a new one"
            )
        loaded = ScheduleState.from_dict(state, self.sequence_counts)
        saved_counts = {name: values[0] for name, values in state["domains"].items()}
        current = {**self.settings, "sequence_counts": self.sequence_counts}
        refuse_changes({**state, "sequence_counts": saved_counts}, current, accept=accept)
        if saved_counts != self.sequence_counts:  # the saved weights are those of other domains
            loaded = loaded.with_weights(self._state.weights / ONE)
        self._state = loaded

    # ---- checks ----

    def _checked(self, weights: Mapping[str, float]) -> np.ndarray:
        """Sampling weights as float64[k] that sum to 1."""
        known = DomainWeights(weights, source="sampling weights").restricted_to(self.names, source="sampling weights")
        for name in known:
            if self.sequence_counts[name] == 0:
                raise InputError(
                    f"the sampling weight of {name!r} is {known[name]:.4g}, but it has no rows: its tokens do not make "
                    "one sequence. Give it weight 0 or more text, or shorten the sequences"
                )
        return known.as_array(self.names)

    def _reweighted(self, state: ScheduleState, weights: np.ndarray) -> ScheduleState:
        if not weights[~state.exhausted].any():
            raise RunFailedError(
                f"stopped before step {state.step + 1}: every domain with a weight has reached "
                f"{self.repetition.max_epochs:g} epochs. Train for fewer steps, add data or raise max_epochs"
            )
        return state.with_weights(weights)

    def _describe_repetition(self, index: int) -> str:
        name = self.names[index]
        return self.repetition.describe(name, self.sequence_counts[name])

    def _by_name(self, values: np.ndarray) -> dict[str, Any]:
        return dict(zip(self.sequence_counts, values.tolist(), strict=True))


def _check_settings(settings: Mapping[str, Any], sequence_counts: Mapping[str, int]) -> None:
    if settings["mode"] not in get_args(Mode):
        raise InputError(f"the sampling mode is {settings['mode']!r}; it must be one of {get_args(Mode)}")
    if not 1 <= settings["global_batch_size"] <= MAX_BATCH_SIZE:
        raise InputError(f"the global batch size is {settings['global_batch_size']}; it must be in [1, 2^20]")
    if not 0 <= settings["seed"] < 1 << 64:
        raise InputError(f"the seed is {settings['seed']}; it must be in [0, 2^64)")
    for name, count in sequence_counts.items():
        if not 0 <= count <= MAX_ROWS:
            raise InputError(f"domain {name!r} has {count} rows; it must have between 0 and 2^60")
