"""One holder of a folder: advisory locks that the kernel releases when their holder dies, however it dies.

A preparation holds its folder's lock alone while it plans, and shares it with its tasks while they work on several
machines. A run holds its directory from its start to its end (`doremi.experiment.run_directory`), and the folder of
each model while it trains that. Whoever else wants to begin needs the lock alone.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, NamedTuple

from doremi import files
from doremi.errors import InputError

logger = logging.getLogger(__name__)

NAME = ".doremi.lock"
POLL_SECONDS = 0.5
INTRODUCTION_SECONDS = 1.0  # in which a process that has just got a lock writes who it is
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of flock(2), on a file system that keeps none
_BEGINNING = "process "
_HOLDER = re.compile(r"process (\d+) on host (\S+) since (.+)")


class FolderLock:
    """The lock of a folder that this process holds alone; see `locked`.

    ``is_kept``: whether the file system keeps locks at all.
    """

    def __init__(self, file: IO[str], *, is_kept: bool) -> None:
        self._file, self.is_kept = file, is_kept

    def share(self) -> None:
        """Let tasks of this preparation join in; from now on nobody holds the lock alone."""
        if self.is_kept:
            fcntl.flock(self._file, fcntl.LOCK_SH)


@contextmanager
def locked(folder: Path, *, activity: str = "being prepared") -> Iterator[FolderLock]:
    """Hold the lock of ``folder`` alone; the folder is made if need be, and removed if nothing came into it.

    What killed processes left half-written in it may be removed by whoever holds it: nobody else writes there.

    Args:
        folder: what to hold.
        activity: what it is held for, as the message for others has it.

    Raises:
        InputError: another process holds it; the message says which one, on which host, since when. Or the folder
            cannot be made.
    """
    is_new = not folder.exists()
    try:
        with _held(folder, fcntl.LOCK_EX, activity) as lock:
            yield lock
    finally:
        if is_new:
            with suppress(OSError):  # there is something in it now
                folder.rmdir()


@contextmanager
def joined(folder: Path, *, activity: str = "being prepared") -> Iterator[None]:
    """Hold the lock of ``folder`` together with others that join it.

    Raises:
        InputError: another process holds it alone.
    """
    with _held(folder, fcntl.LOCK_SH, activity):
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
def _held(folder: Path, kind: int, activity: str) -> Iterator[FolderLock]:
    file, is_kept = _acquire(folder, kind, activity)
    _files.add(file)
    try:
        _introduce(file, is_alone=kind == fcntl.LOCK_EX)
        yield FolderLock(file, is_kept=is_kept)
    finally:
        _files.discard(file)
        _release(file, folder / NAME, is_kept=is_kept)


def _acquire(folder: Path, kind: int, activity: str) -> tuple[IO[str], bool]:
    """The open file of the lock, and whether it is locked: not where the file system keeps no locks."""
    while True:
        files.make_folder(folder)
        try:
            with files.refusal_reported(folder):
                file = (folder / NAME).open("a+", errors="replace")
        except FileNotFoundError:  # the last holder removed the folder just now
            continue
        _check_is_ours(file, folder / NAME)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                raise InputError(_refusal(folder, file, activity)) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise
            logger.warning(
                "%s: this file system keeps no locks (%s): see to it yourself that nobody else writes there meanwhile",
                folder,
                error.strerror,
            )
            return file, False
        if _is_there(file, folder / NAME):
            return file, True
        file.close()  # its holder has removed it since it was opened


def _check_is_ours(file: IO[str], path: Path) -> None:
    """Refuse to take a file of somebody else's for the lock, which is emptied and removed."""
    file.seek(0)
    if file.read(len(_BEGINNING)) not in ("", _BEGINNING):
        file.close()
        raise InputError(f"{path}: in the way of doremi's lock, and not one; move it away, or choose another place")


def _is_there(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _release(file: IO[str], path: Path, *, is_kept: bool) -> None:
    """Remove the lock's file if nobody else holds it or waits for its removal; then let go of it."""
    if file.closed:  # in a forked child
        return
    with suppress(OSError), file:  # others hold it too, or the folder is gone
        if is_kept:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        fcntl.flock(file, fcntl.LOCK_UN)  # for the copies of children too


# ---- who holds it ----


class _Holder(NamedTuple):
    pid: int
    host: str
    since: str

    def is_gone(self) -> bool:
        """Whether it has surely ended; that of another host is not known."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)  # sends nothing
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass
        return False


def _introduce(file: IO[str], *, is_alone: bool) -> None:
    if is_alone:
        file.truncate(0)
    since = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"process {os.getpid()} on host {socket.gethostname()} since {since}\n")
    file.flush()


def _refusal(folder: Path, file: IO[str], activity: str) -> str:
    holders = _holders(file)
    who = f"process {holders[0].pid} on host {holders[0].host}" if holders else "another process"
    others = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
    began = f" (it began at {holders[0].since})" if holders else ""
    return (
        f"{folder}: {activity} by {who}{others}; wait for it{began}, or end it and run this again: what it has "
        "finished is kept"
    )


def _holders(file: IO[str]) -> list[_Holder]:
    """Who says that it holds the lock; waits a moment for one that got it just now, and may not have said so yet."""
    give_up_at = time.monotonic() + INTRODUCTION_SECONDS
    while True:
        file.seek(0)
        said = [_Holder(int(pid), host, since) for pid, host, since in _HOLDER.findall(file.read())]
        if (alive := [holder for holder in said if not holder.is_gone()]) or time.monotonic() > give_up_at:
            return alive
        time.sleep(0.01)


def full_disk_reported(folder: Path) -> AbstractContextManager[None]:
    """Turn a full disk, a quota or a file size limit into an error that says what is full."""
    return files.full_disk_reported(
        lambda error: (
            f"{error.filename or folder}: no room to write: {error.strerror}; free some space and run this "
            "again: input files that are finished are kept"
        )
    )
