"""A disk that is full or failing while a run saves: what to clean up, and what to tell the user."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from doremi import files
from doremi.errors import RunFailedError


@contextmanager
def removed_unless_whole(folder: Path) -> Iterator[None]:
    """Delete a folder that could not be written to its end, for whatever reason: it may be what filled the disk.

    Raises:
        RunFailedError: as `reported`.
    """
    with reported(folder):
        try:
            yield
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn a full disk, a quota, a limit on file sizes or a failing disk into an error that says what to do.

    Raises:
        RunFailedError: ``path`` could not be written.
    """
    try:
        yield
    except Exception as error:
        if not (isinstance(error, OSError) or files.is_failed_io(error)):
            raise
        free = shutil.disk_usage(path.parent).free
        raise RunFailedError(
            f"{path} could not be written: {error}. {free / 1e6:,.1f} MB are free there now. Earlier checkpoints are "
            "as they were: make room, and the same command continues from the newest of them"
        ) from error
