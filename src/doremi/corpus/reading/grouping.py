"""From input files to units of work: consecutive small files together, as few units as their bytes need.

A shard is written for each unit, domain and split, and every one of them costs two files and three fsyncs, so that
20,000 files of 1 kB must not be 20,000 units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from doremi.corpus.reading.inputs import InputFile, Kind
from doremi.corpus.reading.remote import RemoteFile
from doremi.corpus.reading.sources import num_bytes

UNIT_BYTES = 64 << 20  # as stored, at which a unit is full. What is killed loses that much work: under a minute


@dataclass(frozen=True)
class Unit:
    """Consecutive input files: read once, in order, and finished when one marker is written for all of them.

    ``num_bytes`` is their size as stored, when they were listed; 0 where it is not known.
    """

    files: tuple[InputFile, ...]
    num_bytes: int

    @property
    def name(self) -> str:
        """How messages call it."""
        last = self.files[-1].name
        return last if len(self.files) == 1 else f"{len(self.files):,} files up to {last}"

    @property
    def is_evaluated(self) -> bool:
        """Whether its place says that all of it is evaluated on, and none of it trained on."""
        return self.files[0].is_evaluated

    @property
    def evaluation_set(self) -> str | None:
        """The evaluation set that it is of, if any."""
        return self.files[0].domain if self.files[0].split == "set" else None


def units(inputs: Sequence[InputFile], *, unit_bytes: int) -> list[Unit]:
    """The units of a preparation: a function of the files' order and sizes, and of nothing else.

    A unit is full at ``unit_bytes``, so n bytes of one entry of the recipe are at most n / unit_bytes + 1 units. It
    ends where another entry of the recipe or the held-out part begins. Files of unknown size, such as those of hub
    datasets, are units of their own.
    """
    done: list[Unit] = []
    files: list[InputFile] = []
    total = 0
    for file in (piece for listed in inputs for piece in _cut(listed, unit_bytes)):
        size = file.num_bytes()
        if files and not (total < unit_bytes and _go_together(files[-1], file)):
            done.append(Unit(tuple(files), total))
            files, total = [], 0
        files.append(file)
        total += size
    return [*done, Unit(tuple(files), total)] if files else done


def _go_together(file: InputFile, other: InputFile) -> bool:
    is_one_side = file.is_evaluated == other.is_evaluated
    return file.config is other.config and is_one_side and _has_size(file) and _has_size(other)


def _has_size(file: InputFile) -> bool:
    """Not where it is no file at all, or where a server does not say it."""
    return bool(file.paths) and all(not isinstance(path, RemoteFile) or path.size > 0 for path in file.paths)


def _cut(file: InputFile, unit_bytes: int) -> Iterator[InputFile]:
    """The text files of one domain in parts of at least ``unit_bytes``; any other file as it is."""
    if file.kind is not Kind.TEXT:
        yield file
        return
    first = size = 0
    for index, path in enumerate(file.paths, start=1):
        size += num_bytes(path)
        if size >= unit_bytes or index == len(file.paths):
            yield replace(file, paths=file.paths[first:index])
            first, size = index, 0
