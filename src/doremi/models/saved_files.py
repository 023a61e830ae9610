"""Files of a finished folder against its marker, which holds size and digest of each: damage is seen before it is used.

The first process reads every byte once, however often a folder is used, at the speed of the disk: xxhash itself takes
a tenth of a second for a gigabyte.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doremi import files, launch
from doremi.errors import InputError, RunFailedError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedFile:
    """A file as it was saved."""

    size: int  # bytes
    digest: str


class DamagedError(Exception):
    """A folder does not hold what was saved; the message begins with the name of the file."""


def record(folder: Path, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What a marker says of files of ``folder``: size and digest by relative path. Flushes them to the disk first.

    Every file is read once more: from the page cache, at several GB/s.
    """
    recorded = {}
    for path in sorted(paths):
        files.fsync(path)
        recorded[str(path.relative_to(folder))] = {"size": path.stat().st_size, "digest": files.digest_file(path)}
    return recorded


def saved_files(folder: Path) -> dict[str, SavedFile]:
    """What the marker of ``folder`` says was saved, by relative path.

    Raises:
        DamagedError: there is no marker, or none that can be read.
    """
    try:
        marker = files.read_marker(folder)
    except InputError as error:
        raise DamagedError(f"{files.MARKER} cannot be read ({error})") from None
    if marker is None:
        raise DamagedError(f"{files.MARKER} is missing, it was not saved to its end")
    return listed(marker)


def listed(marker: Mapping[str, Any]) -> dict[str, SavedFile]:
    """The ``files`` of a marker.

    Raises:
        DamagedError: it has none, or they are of another form.
    """
    try:
        saved = {name: SavedFile(int(of["size"]), str(of["digest"])) for name, of in marker["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        saved = {}
    if not saved:
        raise DamagedError(f"{files.MARKER} does not say what was saved")
    return saved


def check_size(folder: Path, name: str, saved: SavedFile) -> None:
    """Whether a file is there in full.

    Raises:
        DamagedError: it is missing, or has another size.
    """
    file = folder / name
    if not file.is_file():
        raise DamagedError(f"{name} is missing")
    if (size := file.stat().st_size) != saved.size:
        raise DamagedError(f"{name} has {size:,} bytes, {saved.size:,} were saved")


def check_content(folder: Path, name: str, saved: SavedFile) -> None:
    """Whether a file has the bytes that were saved; reads all of them.

    Raises:
        DamagedError: it has others.
    """
    if (digest := files.digest_file(folder / name)) != saved.digest:
        raise DamagedError(f"{name} has other content than was saved (digest {digest}, expected {saved.digest})")


_checked: set[tuple[Path, int, int, int]] = set()  # path, inode, size and time of change of what this process has read


def check(folder: Path, *, is_needed: Callable[[str], bool] = lambda name: True) -> None:
    """Refuse files of a finished model that are not what its training saved; a folder without a marker is not ours.

    Args:
        folder: of the model.
        is_needed: which of its files are about to be read, by name.

    Raises:
        RunFailedError: a file is missing or was changed; names it, both digests, and what to do.
    """
    marker = files.read_marker(folder) if launch.is_first() else None
    if marker is None:
        return
    if "files" not in marker:
        logger.info("%s: finished by a release that kept no digests; whether it is undamaged is not known", folder)
        return
    try:
        for name, saved in listed(marker).items():
            if is_needed(name):
                _check_once(folder, name, saved)
    except DamagedError as damage:
        raise RunFailedError(
            f"{folder}: {damage}. Put back a copy, or delete the folder and run the same command to train it again"
        ) from None


def _check_once(folder: Path, name: str, saved: SavedFile) -> None:
    check_size(folder, name, saved)
    facts = (folder / name).stat()
    seen = ((folder / name).absolute(), facts.st_ino, facts.st_size, facts.st_mtime_ns)
    if seen not in _checked:
        check_content(folder, name, saved)
        _checked.add(seen)
