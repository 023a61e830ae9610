"""Files that are either whole or absent: atomic writes, content digests, completion markers, safe names."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import xxhash

from doremi.errors import InputError, MissingFileError, shorten, shown

MARKER = "complete.json"
FAILING = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)  # of a disk, a server
FAILED_WRITES = ("(os error ", "inline_container.cc", "PytorchStreamWriter", "iostream error")  # of Rust and of torch
PARTIAL = ".partial"  # at the end of a name that begins with a dot: not whole yet
_TEMPORARY = re.compile(r"\.tmp[A-Za-z0-9]{6}")
MAX_ENCODED_NAME_BYTES = 200  # file systems allow 255 for one component; the prefix and suffixes need a few


class DuplicateKeyError(ValueError):
    """A key of a JSON object is given twice, of which Python would silently take the last."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; on success fsync it and rename it over ``path``.

    A crash at any point leaves the old file or the new one, never a half-written one.

    Raises:
        InputError: nothing can be written there.
    """
    make_folder(path.parent)
    beside = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with refusal_reported(path):
        beside.touch()
    try:
        yield beside
        fsync(beside)
        beside.replace(path)
        fsync(path.parent)
    finally:
        with suppress(OSError):  # what failed is the error; a leftover is removed by the next run
            beside.unlink(missing_ok=True)


def remove_partial_of(folder: Path, names: Iterable[str]) -> None:
    """Remove what `atomic_path` left of files of these names in ``folder``, and nothing else of it."""
    ours = re.compile(rf"\.(?:{'|'.join(map(re.escape, names))})\.[0-9]+{re.escape(PARTIAL)}")
    for path in list(folder.iterdir()):
        if ours.fullmatch(path.name) and path.is_file():
            path.unlink()


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left half-written below ``folder``, which the caller holds alone.

    Whether a process that wrote is still alive need not be known, nor on which machine:
    see `doremi.corpus.storing.lock`.

    Args:
        folder: is looked through in full.
    """
    for place, folders, names in os.walk(folder):
        for name in filter(_is_partial, [*folders, *names]):
            path = Path(place, name)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        folders[:] = [name for name in folders if not _is_partial(name)]


def _is_partial(name: str) -> bool:
    """Of ours, or of safetensors, which writes beside and renames too."""
    return (name.startswith(".") and name.endswith(PARTIAL)) or _TEMPORARY.fullmatch(name) is not None


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises:
        InputError: it cannot be made: no permission, a file in the way, a file system that is only read.
    """
    with refusal_reported(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def refusal_reported(path: Path) -> Iterator[None]:
    """Turn what the system has against writing at ``path`` into an error of the user; a failing disk is none."""
    try:
        yield
    except OSError as error:
        if is_failed_io(error):
            raise
        reason = f"{error.strerror} ({error.filename})"
        raise InputError(f"{path}: cannot be written: {reason}; choose another place, or make it writable") from error


# A name or a whole path is too long, links lead in a circle, a file is where a folder should be or the reverse, or the
# file system has no such names.
_IMPOSSIBLE_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EILSEQ)


def is_impossible_path(error: OSError) -> bool:
    """Whether the path itself is at fault, which is always one that somebody gave."""
    return error.filename is not None and error.errno in _IMPOSSIBLE_PATH


def is_full_disk(error: OSError) -> bool:
    """Whether there was no room: a full disk, a quota or a limit on the size of files."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_failed_io(error: BaseException) -> bool:
    """Whether the machine is at fault: no room, or a disk or file server that fails.

    Rust (safetensors, tokenizers) and torch report a failed write in exceptions of their own.
    """
    if isinstance(error, OSError):
        return is_full_disk(error) or error.errno in FAILING
    return isinstance(error, Exception) and any(words in str(error) for words in FAILED_WRITES)


@contextmanager
def full_disk_reported(explain: Callable[[OSError], str]) -> Iterator[None]:
    """Turn a full disk into an error that says what to do.

    Raises:
        InputError: with what ``explain`` says of the `OSError`; others are left as they are.
    """
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise InputError(explain(error)) from error


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinities are refused: they are not JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        MissingFileError: there is no such file.
        InputError: it is not JSON; the message gives line and column.
    """
    try:
        with reading(path):
            text = path.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_unique)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, expected a JSON file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); expected a JSON file") from None
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        raise InputError(f"{where}: not valid JSON: {error.msg}") from None
    except DuplicateKeyError as error:
        raise InputError(f"{path}: the key {error} is given twice in one object; take one of them out") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise InputError(f"{path}: not valid JSON: {error}") from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system has against reading a file into an error of the user, but for its absence.

    Raises:
        InputError: it cannot be read, or is a pipe or device that might be waited for, or read, for ever.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or _is_passed_by_shell(path)):
            raise InputError(f"{path}: a pipe, socket or device; expected a file")
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except OSError as error:
        if isinstance(error, InputError) or is_failed_io(error):
            raise
        raise InputError(f"{shorten(str(path), 200)}: cannot be read: {error.strerror}; check this path") from error


def _is_passed_by_shell(path: Path) -> bool:
    """``doremi run <(sed ... recipe.yaml)`` and ``/dev/stdin``: a pipe with somebody who writes."""
    return str(path).startswith(("/dev/fd/", "/dev/stdin", "/proc/self/fd/"))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise DuplicateKeyError(shown(twice))
    return found


def digest_bytes(data: bytes | memoryview) -> str:
    """XXH3-128 of ``data`` as 32 hexadecimal digits. Guards against accidents, not against attackers."""
    return xxhash.xxh3_128_hexdigest(data)


def digest_json(value: Any) -> str:
    """Digest of a JSON value that does not depend on the order of its keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode())


def digest_file(path: Path) -> str:
    """XXH3-128 of a file's content, read in blocks of 4 MiB."""
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            hasher.update(block)
    return hasher.hexdigest()


def write_marker(folder: Path, content: Mapping[str, Any]) -> None:
    """Declare ``folder`` complete. To be called last: what has no marker does not count."""
    write_json(folder / MARKER, dict(content))


def read_marker(folder: Path) -> dict[str, Any] | None:
    """The completion marker of ``folder``, or None where the work in it was not finished."""
    marker = folder / MARKER
    if not marker.is_file():
        return None
    content = read_json(marker)
    if not isinstance(content, dict):
        raise InputError(f"{marker}: expected a JSON object; delete the file to redo this stage")
    return content


def encode_name(name: str) -> str:
    """A domain name as one safe path component, reversible by `decode_name`.

    Everything but letters, digits and ``_ . - ~`` is percent-encoded, so that no name can leave its folder; the
    ``domain=`` prefix keeps ``..``, ``CON`` and names with a leading dot harmless.

    Raises:
        InputError: the name is empty, longer than 200 bytes once encoded, or no valid Unicode.
    """
    try:
        encoded = quote(name, safe="")
    except UnicodeEncodeError:  # half a surrogate pair, or a folder whose name is not UTF-8
        raise InputError(f"domain name {name!a} is no valid Unicode; rename the domain") from None
    if not name.strip():
        raise InputError(f"domain name {name!r} is empty; every document needs a domain with a name")
    if len(encoded) > MAX_ENCODED_NAME_BYTES:
        raise InputError(
            f"domain name {name[:40]!r}... has {len(encoded)} bytes once percent-encoded, at most "
            f"{MAX_ENCODED_NAME_BYTES} are allowed; is the right field used as the domain?"
        )
    return f"domain={encoded}"


def decode_name(component: str) -> str:
    """The domain name that `encode_name` turned into ``component``."""
    return unquote(component.removeprefix("domain="))
