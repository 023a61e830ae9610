"""Checkpoints that count only when complete: a marker with the size of every file is written last."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from doremi import files

logger = logging.getLogger(__name__)

_FOLDER = re.compile(r"checkpoint-(\d+)")


def complete(folder: Path) -> None:
    """Flush every file of a checkpoint to disk, then mark it as complete."""
    sizes = {}
    for path in _files(folder):
        files.fsync(path)
        sizes[str(path.relative_to(folder))] = path.stat().st_size
    files.write_marker(folder, {"sizes": sizes})


def is_complete(folder: Path) -> bool:
    """Whether the marker is there and every file still has the size it was saved with."""
    try:
        marker = files.read_marker(folder)
    except ValueError:
        return False
    if marker is None:
        return False
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in _files(folder)}
    return all(sizes.get(name) == size for name, size in marker["sizes"].items())


def steps(run_folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint of a run, complete or not, oldest first."""
    found = [
        (int(match[1]), path) for path in run_folder.glob("checkpoint-*") if (match := _FOLDER.fullmatch(path.name))
    ]
    return sorted(found)


def newest_complete(run_folder: Path) -> Path | None:
    """The checkpoint to continue from, or None. Incomplete ones are skipped, with a warning."""
    for step, folder in reversed(steps(run_folder)):
        if is_complete(folder):
            return folder
        logger.warning("%s: the checkpoint of step %d is incomplete, trying the one before", folder, step)
    return None


def rotate(run_folder: Path, *, keep: int) -> None:
    """Delete all but the newest ``keep`` complete checkpoints, and incomplete ones older than those."""
    found = steps(run_folder)
    whole = [folder for _, folder in found if is_complete(folder)][-max(keep, 1) :]
    oldest_kept = found.index(next(item for item in found if item[1] == whole[0])) if whole else 0
    for _, folder in found[:oldest_kept]:
        discard(folder)


def discard(folder: Path) -> None:
    """Delete a checkpoint, its marker first: a deletion that is cut short must not leave one that looks whole."""
    (folder / files.MARKER).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != files.MARKER)
