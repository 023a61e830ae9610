"""Runs whose model is not kept: what is left of one is its marker, its log and the losses of held-out documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from doremi import launch
from doremi.errors import InputError
from doremi.experiment.finished import HISTORY, LOSSES, REMEDY, STARTED
from doremi.models import saved_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from doremi.evaluation.perplexity import HeldOutSet
    from doremi.evidence.paired_documents import DocumentLosses


def score(model: PreTrainedModel, held_out: HeldOutSet, *, batch_size: int, path: Path, key: str) -> None:
    """Write the losses of a model in memory, in float32, as those of kept ones are scored.

    Args:
        model: that was just trained; all of several processes score it, since shards of it may be in each.
        held_out: what it is scored on.
        batch_size: windows per forward pass.
        path: of the Parquet file, which the first process writes.
        key: digest of the run.

    Raises:
        RunFailedError: a loss is not finite.
    """
    from doremi.evaluation import loss_files, perplexity

    found = perplexity.document_losses(
        model, held_out, batch_size=batch_size, description=f"evaluate {path.parent.name}"
    )
    if launch.is_first():
        documents = dict(zip(held_out.names, held_out.documents, strict=True))
        loss_files.write(path, found, documents=documents, key=key)


def losses(folder: Path, names: Sequence[str], *, key: str) -> dict[str, DocumentLosses]:
    """The losses of a finished run by domain and set.

    Raises:
        InputError: they are not there, or damaged.
        RunFailedError: they were changed after training.
    """
    from doremi.evaluation import loss_files

    saved_files.check(folder, is_needed=lambda name: name == LOSSES)
    found = loss_files.read(folder / LOSSES, names, key=key)
    if found is None:
        raise InputError(f"{folder / LOSSES}: not the losses of this run; {REMEDY}")
    return found


def files_to_read(folder: Path) -> list[Path]:
    """What a finished run holds beside its marker."""
    return [folder / HISTORY, folder / LOSSES]


def clear(folder: Path) -> None:
    """Remove what a run needs only while it trains, before it is marked as finished or failed; by the first process."""
    from doremi.training import checkpoints

    for step in checkpoints.steps(folder):
        checkpoints.discard(checkpoints.path(folder, step))
    (folder / STARTED).unlink(missing_ok=True)
