"""Checkpoints that count only when complete: a marker with size and digest of every file is written last."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from doremi import files
from doremi.errors import InputError
from doremi.models import saved_files

logger = logging.getLogger(__name__)

_FOLDER = re.compile(r"checkpoint-([1-9]\d*)")


def path(run_folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies; transformers' name for it."""
    return run_folder / f"checkpoint-{step}"


def steps(run_folder: Path) -> list[int]:
    """Steps that have a checkpoint, complete or not, in ascending order."""
    return sorted(
        int(match[1]) for found in run_folder.glob("checkpoint-*") if (match := _FOLDER.fullmatch(found.name))
    )


def complete(folder: Path) -> None:
    """Flush a checkpoint to disk, then mark it as complete.

    Every file is read once more for its digest: from the page cache, at several GB/s.
    """
    entries = [entry for entry in folder.rglob("*") if entry != folder / files.MARKER]
    for subfolder in filter(Path.is_dir, entries):
        files.fsync(subfolder)
    files.write_marker(folder, {"files": saved_files.record(folder, filter(Path.is_file, entries))})
    files.fsync(folder.parent)  # the new folder's name, before an older checkpoint is deleted on the strength of it


def find_damage(folder: Path) -> str | None:
    """Why a checkpoint cannot be used, beginning with the name of the file; None for one that is what was saved.

    Reads every byte.
    """
    try:
        saved = saved_files.saved_files(folder)
        for name, file in saved.items():
            saved_files.check_size(folder, name, file)
        for name, file in saved.items():
            saved_files.check_content(folder, name, file)
    except saved_files.DamagedError as damage:
        return str(damage)
    except OSError as error:  # a bad sector, or no permission
        return f"{error.filename or folder} cannot be read ({error.strerror})"
    return None


def check(folder: Path) -> None:
    """Refuse a checkpoint that is not what was saved.

    Raises:
        InputError: it was not saved to its end, or was damaged since; names the file.
    """
    if damage := find_damage(folder):
        raise InputError(f"{folder}: this checkpoint cannot be used: {damage}. Choose another")


def newest_complete(run_folder: Path) -> int:
    """The step to continue from; 0 where no checkpoint was ever saved to its end. Others are skipped, with a warning.

    Raises:
        InputError: checkpoints were saved, and all of them are damaged. Starting again from step 0 would throw the
            run's work away, which is the user's to decide.
    """
    found = steps(run_folder)
    for step in reversed(found):
        if not (damage := find_damage(path(run_folder, step))):
            return step
        logger.warning("%s is passed over: %s", path(run_folder, step), damage)
    if any((path(run_folder, step) / files.MARKER).exists() for step in found):
        raise InputError(
            f"{run_folder}: none of its checkpoints can be used, see the warnings above. Put back a copy of one, or "
            f"delete {run_folder}/checkpoint-* to start again from step 0"
        )
    if found:
        logger.warning("%s: no checkpoint was saved to its end, starting from step 0", run_folder)
    return 0


def rotate(run_folder: Path, *, newest: int, keep: int | None) -> None:
    """Delete checkpoints before ``newest``, just completed, but for the ``keep`` - 1 latest complete ones; None: none.

    Whether those are complete is told by their sizes: reading them all at every save would cost more than saving does.
    Later checkpoints are left alone and do not count: the run was not continued from them because they are damaged,
    and it will replace them when it gets there.
    """
    if keep is None:
        return
    older = [path(run_folder, step) for step in steps(run_folder) if step < newest]
    whole = [folder for folder in older if _has_all_sizes(folder)]
    num_others = max(keep, 1) - 1
    for folder in set(older) - set(whole[-num_others:] if num_others else []):
        _delete_if_possible(folder)


def discard(folder: Path) -> None:
    """Delete a checkpoint, its marker first: a deletion that is cut short must not leave one that looks whole."""
    (folder / files.MARKER).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def _delete_if_possible(folder: Path) -> None:
    """Training does not end because an old checkpoint could not be deleted, as happens on network file systems."""
    try:
        discard(folder)
    except OSError as error:
        logger.warning("%s could not be deleted: %s", folder, error)


def _has_all_sizes(folder: Path) -> bool:
    try:
        for name, saved in saved_files.saved_files(folder).items():
            saved_files.check_size(folder, name, saved)
    except (saved_files.DamagedError, OSError):
        return False
    return True
