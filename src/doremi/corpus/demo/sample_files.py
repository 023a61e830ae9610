"""Files that an installation already has, found in the same order everywhere.

They come from the record that a distribution keeps of itself or from a folder of Python's own, never from a search of
what else is installed, and no package is imported to find them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from doremi.files import digest_bytes


@dataclass(frozen=True)
class InstalledFile:
    """A file and a key for it that is the same on every machine, which an absolute path is not."""

    key: PurePosixPath
    path: Path


def distribution_files(distributions: Iterable[str], *suffixes: str) -> Iterator[InstalledFile]:
    """The files that ``distributions`` recorded as theirs; an absent distribution has none. No suffix: all files."""
    for name in distributions:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        # Not `distribution.files`, which looks up each of PyTorch's 15,000 files on disk from Python 3.12 on.
        record = distribution.read_text("RECORD") or ""
        for row in filter(None, csv.reader(record.splitlines())):
            key = PurePosixPath(row[0])
            if (not suffixes or key.suffix in suffixes) and ".." not in key.parts:
                yield InstalledFile(key, Path(str(distribution.locate_file(key))))


def folder_files(folder: Path, pattern: str) -> Iterator[InstalledFile]:
    """The files below ``folder`` that match ``pattern``, keyed by the folder's name."""
    for path in folder.rglob(pattern):
        yield InstalledFile(PurePosixPath(folder.name, path.relative_to(folder).as_posix()), path)


def shuffled(files: Iterable[InstalledFile]) -> list[InstalledFile]:
    """In the order of their keys' digests: a capped domain is then a fair sample of its files, not its letter A."""
    return sorted(files, key=lambda file: digest_bytes(str(file.key).encode()))


def read_texts(files: Iterable[InstalledFile]) -> Iterator[str]:
    """The files' texts, shuffled; those that are not UTF-8 or that were stripped from the installation are skipped."""
    for file in shuffled(files):
        if file.path.is_file():
            try:
                yield file.path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def is_test(file: InstalledFile) -> bool:
    """Whether a Python source is a unit test, by the two customs of naming them."""
    return bool({"test", "tests"} & set(file.key.parts)) or file.key.name.startswith("test_")
