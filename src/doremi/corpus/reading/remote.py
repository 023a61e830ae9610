"""Files that are not on this machine, by URL, through fsspec: s3://, gs://, hf:// and what else has a package for it.

Credentials, endpoints and regions come from where the package of the protocol looks for them (environment, its own
files, ``~/.config/fsspec``), never from a recipe.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fsspec.core import url_to_fs

from doremi.errors import InputError, MissingFileError

READ_AHEAD_BYTES = 8 << 20  # of a file that is being read; some protocols' own default is 50 MB
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MAGIC = re.compile(r"[*?[]")
# Names of what tells two versions of a file apart, in the dialects of the protocols, the best ones first.
_VERSION_KEYS = ("etag", "ETag", "md5Hash", "blob_id", "checksum", "mtime", "LastModified", "updated", "created")


def is_remote(path: str) -> bool:
    """Whether a path of a recipe is a URL."""
    return _URL.match(path) is not None


@dataclass(frozen=True)
class RemoteFile:
    """A file by its URL, as it was when it was listed.

    ``size`` and ``version`` tell whether it changed between two runs: ``version`` is the entity tag or checksum that
    the file system gives without reading the file, else the time of its last change, else nothing.
    """

    url: str
    size: int
    version: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """What its name ends in, such as ``.gz``."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> str:
        """The URL without its last part."""
        return self.url.rpartition("/")[0]

    def open(self) -> RemoteStream:
        """The file for reading, a few megabytes ahead.

        Raises:
            MissingFileError: it is not there any more.
            InputError: it cannot be reached; the same holds for every read.
        """
        with _failures_reported(self.url):
            system, path = _file_system(self.url)
            return RemoteStream(system.open(path, "rb", block_size=READ_AHEAD_BYTES), self.url)


class RemoteStream(io.RawIOBase):
    """What Arrow needs of a file; whatever its file system raises becomes an error that names the URL."""

    def __init__(self, file: Any, url: str) -> None:
        self._file, self._url = file, url

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; none at the end."""
        with _failures_reported(self._url):
            data: bytes = self._file.read(size)
            return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Bytes from the start."""
        return int(self._file.tell())

    def close(self) -> None:
        """Let go of the connection."""
        self._file.close()
        super().close()


@dataclass(frozen=True)
class Found:
    """A remote file and the folders between it and the place that the recipe names."""

    file: RemoteFile
    folders: tuple[str, ...]
    is_named: bool  # by the recipe itself or its pattern, rather than found in a folder

    @property
    def is_hidden(self) -> bool:
        """Whether its name, or that of a folder on the way to it, begins with a dot."""
        return any(part.startswith(".") for part in (*self.folders, self.file.name))


def find(url: str) -> list[Found]:
    """What a URL names, a file, a folder or a glob pattern: all files, in the order in which local ones are read.

    Raises:
        MissingFileError: nothing is there.
        InputError: the package for the protocol is not installed, or the place cannot be reached.
    """
    with _failures_reported(url):
        system, path = _file_system(url)
        has_magic = _MAGIC.search(path) is not None
        matches = set(system.glob(path) if has_magic else [path])
        listed = {name: info for match in matches for name, info in system.find(match, detail=True).items()}
    if not listed:
        raise MissingFileError(f"{url}: no file there; check the URL of this corpus input")
    top = _top(path, is_file=path in listed)
    found = [_found(system, name, listed[name], top, is_named=name in matches) for name in listed]
    visible = [item for item in found if not item.is_hidden or listed.keys() == {path}]
    return sorted(visible, key=lambda item: item.file.url.split("/"))


def _file_system(url: str) -> tuple[Any, str]:
    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url}: this protocol cannot be read here: {error}; pip install the package named") from error
    return system, path


def _top(path: str, *, is_file: bool) -> PurePosixPath:
    """The folder that domain folders are looked for below: what comes before the first part with a wildcard."""
    parts = PurePosixPath(path).parts
    plain = next((index for index, part in enumerate(parts) if _MAGIC.search(part)), len(parts) - is_file)
    return PurePosixPath(*parts[:plain])


def _found(system: Any, name: str, info: dict[str, Any], top: PurePosixPath, *, is_named: bool) -> Found:
    version = next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")
    file = RemoteFile(system.unstrip_protocol(name), int(info.get("size") or 0), version)
    return Found(file, PurePosixPath(name).relative_to(top).parts[:-1], is_named)


@contextmanager
def _failures_reported(url: str) -> Iterator[None]:
    """Turn what a file system raises into an error that names the URL."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"{url}: no file there; check the URL of this corpus input") from error
    except Exception as error:  # every protocol's package raises errors of its own
        raise InputError(
            f"{url}: cannot be read: {type(error).__name__}: {error}; check network and credentials, then run this "
            "again: input files that are finished are kept"
        ) from error
