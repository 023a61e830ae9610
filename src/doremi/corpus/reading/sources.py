"""A file to read, here or elsewhere: its size, what tells two versions of it apart, and its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from doremi.corpus.reading.remote import RemoteFile
from doremi.errors import InputError, shorten

Source = Path | RemoteFile
_OF_WRONG_JSON = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


def identity(source: Source) -> list[int | str]:
    """[bytes, version], to notice that a file changed between two runs.

    The version is the time of the last change in ns; of a remote file see `RemoteFile`.
    """
    if isinstance(source, RemoteFile):
        return [source.size, source.version]
    stat = source.stat()
    return [stat.st_size, stat.st_mtime_ns]


def num_bytes(source: Source) -> int:
    """Size of the file as it is stored."""
    return source.size if isinstance(source, RemoteFile) else source.stat().st_size


@contextmanager
def opened(source: Source) -> Iterator[Any]:
    """The file as a ``pyarrow.NativeFile``; whatever goes wrong while it is read is an error that names it."""
    import pyarrow as pa

    with damage_reported(source):
        if isinstance(source, RemoteFile):
            with pa.PythonFile(source.open(), mode="r") as file:
                yield file
        else:
            with pa.OSFile(str(source)) as file:
                yield file


@contextmanager
def damage_reported(source: Source) -> Iterator[None]:
    """Turn what pyarrow and datasets raise on a damaged file into an error that names it.

    datasets checks nothing of the JSON files of a saved dataset: wrong ones end in errors of every kind.
    """
    import pyarrow as pa

    try:
        yield
    except InputError:
        raise  # which may be an OSError too, of a remote file
    except (pa.ArrowException, OSError, EOFError, *_OF_WRONG_JSON) as error:
        problem = f"{type(error).__name__}: {shorten(str(error), 300)}"
        raise InputError(
            f"{source}: cannot be read to the end: {problem}; the file is truncated or damaged, or not what its name "
            "says: copy it again"
        ) from error
