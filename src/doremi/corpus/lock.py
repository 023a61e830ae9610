"""One preparation per folder: an advisory lock that the kernel releases when its holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from doremi.errors import InputError

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``, which is made if need be.

    Raises:
        InputError: another process holds it; the message says which one, on which host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(
                f"{folder}: being prepared by {holder}; wait for it, or end it and run this again: what it has "
                "finished is kept"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on host {socket.gethostname()}")
        file.flush()
        yield


@contextmanager
def full_disk_reported(folder: Path) -> Iterator[None]:
    """Turn a full disk, a quota or a file size limit into an error that says what is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise InputError(
            f"{error.filename or folder}: no room to write: {error.strerror}; free some space and run this again: "
            "input files that are finished are kept"
        ) from error
