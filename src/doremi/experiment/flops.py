"""What training took in FLOPs: the one account of plans and results.

A step's training pass is a forward and a backward pass of every row. A policy may need more: a forward pass of the rows
before their training pass, where it wants a step's losses before the backward pass of several micro-batches, and a
forward pass of a reference. Rows whose reference losses were stored are not scored again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from doremi.methods.protocol import Policy
from doremi.models.size import ModelSize


@dataclass(frozen=True)
class Passes:
    """Rows that went through a model, expected or as they were done."""

    trained: float  # forward and backward
    measured: float = 0.0  # forward once more, before
    scored: float = 0.0  # forward, through the reference

    def as_dict(self) -> dict[str, float]:
        """JSON-able."""
        return asdict(self)


def expected_passes(
    policy: Policy | None, *, num_rows: float, num_micro_batches: int, num_scored: float | None = None
) -> Passes:
    """The passes of a run that is not interrupted.

    Args:
        policy: of the run.
        num_rows: that it trains on.
        num_micro_batches: of each process in a step.
        num_scored: rows whose reference losses are not stored yet; None: all of them.
    """
    if policy is None:
        return Passes(num_rows)
    is_measured = policy.when == "before" and num_micro_batches > 1
    is_scored = policy.sees in ("excess", "reference")
    return Passes(
        num_rows,
        measured=num_rows if is_measured else 0.0,
        scored=(num_rows if num_scored is None else num_scored) if is_scored else 0.0,
    )


def flops(
    passes: Passes | Mapping[str, float], size: ModelSize, reference: ModelSize, *, sequence_length: int
) -> float:
    """FLOPs of these passes with rows of ``sequence_length`` tokens; NaN: not known.

    Args:
        passes: of one run.
        size: of the model that is trained.
        reference: of the model whose losses its policy needs; not counted without scored rows.
        sequence_length: tokens in a row.
    """
    done = passes if isinstance(passes, Passes) else Passes(**passes)
    forward = size.forward_flops(sequence_length)
    total = 3 * forward * done.trained + forward * done.measured
    return total + reference.forward_flops(sequence_length) * done.scored if done.scored else total
