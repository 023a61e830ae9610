"""One preparation per folder: advisory locks that the kernel releases when their holder dies, however it dies.

A preparation holds its folder's lock alone while it plans, and shares it with its tasks while they work on several
machines. Whoever else wants to begin needs it alone.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from doremi import files
from doremi.errors import InputError

NAME = ".lock"
POLL_SECONDS = 0.5


class FolderLock:
    """The lock of a folder that this process holds alone; see `locked`."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def share(self) -> None:
        """Let tasks of this preparation join in; from now on nobody holds the lock alone."""
        fcntl.flock(self._file, fcntl.LOCK_SH)


@contextmanager
def locked(folder: Path) -> Iterator[FolderLock]:
    """Hold the lock of ``folder`` alone; the folder is made if need be.

    Raises:
        InputError: another process holds it; the message says which one, on which host. Or the folder cannot be made.
    """
    files.make_folder(folder)
    with _held(folder, fcntl.LOCK_EX) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on host {socket.gethostname()}")
        file.flush()
        yield FolderLock(file)


@contextmanager
def joined(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder`` together with the other tasks of a preparation.

    Raises:
        InputError: another preparation holds it alone.
    """
    with _held(folder, fcntl.LOCK_SH):
        yield


_files: set[IO[str]] = set()  # of the locks that this process holds


def _let_go_after_fork() -> None:
    """A forked child has a copy of each lock, and would hold it when its parent is killed: close it.

    And end with the parent: datatrove forks a manager that would wait for one that was killed for ever.
    """
    if _files:
        for file in _files:
            file.close()
        _files.clear()
        threading.Thread(target=die_with_parent, args=(os.getppid(),), daemon=True).start()


os.register_at_fork(after_in_child=_let_go_after_fork)


def die_with_parent(parent: int) -> None:
    """End this process soon after ``parent``, the process that started it, has ended."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


@contextmanager
def _held(folder: Path, kind: int) -> Iterator[IO[str]]:
    with files.refusal_reported(folder):
        file = (folder / NAME).open("a+")
    with file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(
                f"{folder}: being prepared by {holder}; wait for it, or end it and run this again: what it has "
                "finished is kept"
            ) from None
        _files.add(file)
        try:
            yield file
        finally:
            _files.discard(file)
            fcntl.flock(file, fcntl.LOCK_UN)  # for the copies of children too


def full_disk_reported(folder: Path) -> AbstractContextManager[None]:
    """Turn a full disk, a quota or a file size limit into an error that says what is full."""
    return files.full_disk_reported(
        lambda error: (
            f"{error.filename or folder}: no room to write: {error.strerror}; free some space and run this "
            "again: input files that are finished are kept"
        )
    )
