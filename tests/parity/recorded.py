"""Per-token losses as a run might have recorded them, given to the real objective by ranks and micro-batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from doremi.training.reference_cache import ReferenceCache
from doremi.training.signals import DomainSums, ExcessLoss

NAMES = ("arxiv", "books", "code", "dialogue", "email")
NUM_STEPS, NUM_ROWS, SEQUENCE_LENGTH = 200, 40, 12
ROWS_PER_DOMAIN = NUM_STEPS * NUM_ROWS


class Token(NamedTuple):
    domain: int
    proxy_nats: float
    reference_nats: float


@dataclass(frozen=True)
class Step:
    """A global batch and its losses, nats[B, T-1]: 0 where the label is masked."""

    domain_ids: np.ndarray  # int64[B]
    rows: np.ndarray  # int64[B]
    is_target: np.ndarray  # bool[B, T-1]
    proxy_nats: np.ndarray  # float64
    reference_nats: np.ndarray  # float32, as the reference's cache stores them

    def tokens(self) -> list[Token]:
        """The targets of the batch, one by one."""
        return [
            Token(int(self.domain_ids[row]), float(self.proxy_nats[row, j]), float(self.reference_nats[row, j]))
            for row, j in np.argwhere(self.is_target)
        ]

    def micro_batch(self, chosen: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What the trainer gives the objective for the rows ``chosen``: the proxy's nats and the batch."""
        labels = np.full((len(chosen), SEQUENCE_LENGTH), 7)
        labels[:, 1:][~self.is_target[chosen]] = -100
        batch = {"labels": labels, "domain_ids": self.domain_ids[chosen], "rows": self.rows[chosen]}
        return torch.from_numpy(self.proxy_nats[chosen]), {k: torch.from_numpy(v) for k, v in batch.items()}


def record(*, absences: bool) -> list[Step]:
    """Which domain is hard for the proxy changes slowly, so that α moves all the time without becoming one-hot.

    Rows have 1 to 11 targets with a masked stretch within. With ``absences``, the last domain is not seen in the first
    steps, and now and then not in a batch, or in it without a target.
    """
    rng = np.random.default_rng(2023)
    return [_record_step(rng, step, absences) for step in range(NUM_STEPS)]


def _record_step(rng: np.random.Generator, step: int, absences: bool) -> Step:
    last = len(NAMES) - 1
    domain_ids = np.concatenate([np.arange(len(NAMES)), rng.integers(0, len(NAMES), NUM_ROWS - len(NAMES))])
    if absences and (step < 3 or step % 7 == 0):
        domain_ids[domain_ids == last] = rng.integers(0, last)
    rng.shuffle(domain_ids)
    is_target = np.arange(SEQUENCE_LENGTH - 1) < rng.integers(1, SEQUENCE_LENGTH, NUM_ROWS)[:, None]
    is_target[::3, 2:4] = False
    if absences and step % 7 == 1:
        is_target[domain_ids == last] = False
    shape = is_target.shape
    reference = rng.gamma(4, size=shape).astype(np.float32)
    gap = 0.2 * np.sin(step / 15 + domain_ids)[:, None] + rng.normal(0, 0.3, shape)
    return Step(
        domain_ids=domain_ids,
        rows=step * NUM_ROWS + np.arange(NUM_ROWS),
        is_target=is_target,
        proxy_nats=np.where(is_target, reference + gap, 0.0),
        reference_nats=np.where(is_target, reference, np.float32(0)),
    )


def objective_of(steps: list[Step], folder, **settings) -> ExcessLoss:
    """The real objective; its reference is the recording, through the cache, and is never called as a model."""
    row_counts = dict.fromkeys(NAMES, ROWS_PER_DOMAIN)
    cache = ReferenceCache.open(folder, row_counts=row_counts, sequence_length=SEQUENCE_LENGTH, key={})
    for step in steps:
        cache.write(step.domain_ids, step.rows, step.reference_nats)
    return ExcessLoss(torch.nn.Identity(), names=NAMES, cache=cache, **settings)


def rows_of(rank: int, micro_step: int, *, num_ranks: int, accumulation: int) -> np.ndarray:
    """Which rows of the global batch are in a rank's micro-batch, as the loader slices it."""
    size = NUM_ROWS // (num_ranks * accumulation)
    return np.arange(NUM_ROWS).reshape(accumulation, num_ranks, size)[micro_step, rank]


def take_step(objective: ExcessLoss, step: Step, *, num_ranks: int, accumulation: int) -> None:
    """Add up the micro-batches of each rank, then the ranks, as the trainer and an all-reduce do; update once."""
    nothing = DomainSums(*torch.zeros(2, len(NAMES), dtype=torch.float64))
    by_rank = [nothing] * num_ranks
    for rank in range(num_ranks):
        for micro_step in range(accumulation):
            rows = rows_of(rank, micro_step, num_ranks=num_ranks, accumulation=accumulation)
            by_rank[rank] = by_rank[rank] + objective.sums(*step.micro_batch(rows))
    objective.update(sum(by_rank, start=nothing))
