"""Which files an input of the recipe names, local or remote, and what each of them is."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from doremi.corpus.config import CorpusConfig, SetConfig
from doremi.corpus.reading import remote
from doremi.corpus.reading.sources import Source
from doremi.errors import InputError, MissingFileError

logger = logging.getLogger(__name__)


class Kind(Enum):
    """What an input file is."""

    JSON_LINES = auto()
    TEXT = auto()
    PARQUET = auto()
    DATASET = auto()
    HUB_DATASET = auto()
    READER = auto()


_SUFFIXES = {
    Kind.JSON_LINES: (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst"),
    Kind.TEXT: (".txt", ".txt.gz", ".txt.zst"),
    Kind.PARQUET: (".parquet",),
}
SUPPORTED = (
    f"supported: {' '.join(suffix for group in _SUFFIXES.values() for suffix in group)} and local folders of "
    "datasets.save_to_disk"
)
_SAVED_DATASET = ("state.json", "dataset_info.json")  # files of a folder that datasets.save_to_disk wrote


class Leaf(NamedTuple):
    """A file that is read, or a folder of ``datasets.save_to_disk``."""

    kind: Kind
    source: Source
    folders: tuple[str, ...]  # between what the recipe names and the file: ``[split/]domain[/shard]``


def leaves(pattern: str) -> list[Leaf]:
    """All input files that a path, URL or glob pattern names, once each, in sorted order.

    Raises:
        MissingFileError: nothing there, or nothing that is read.
        InputError: a file of another type is named, or a remote place cannot be reached.
    """
    found = list(_remote(pattern) if remote.is_remote(pattern) else _local(pattern))
    if not found:
        raise MissingFileError(f"{pattern}: no input file in it; {SUPPORTED}")
    return list({leaf.source: leaf for leaf in found}.values())  # ``**`` names a folder and the files in it


def check_inputs(config: CorpusConfig, *, sets: Sequence[SetConfig] = ()) -> None:
    """List the local inputs of a corpus and of its evaluation sets: all that can be known of them without reading and
    without the network.

    Raises:
        MissingFileError, InputError: as `leaves`.
    """
    for item in (*config.inputs, *config.held_out_inputs, *sets):
        if item.path is not None and not remote.is_remote(item.path):
            leaves(item.path)


def _local(pattern: str) -> Iterator[Leaf]:
    top, matches = _matches(pattern)
    for match in matches:
        for kind, path in _below(match, is_named=not match.is_dir()):
            folder = path if kind is Kind.DATASET else path.parent
            yield Leaf(kind, path, folder.relative_to(top).parts)


def _matches(pattern: str) -> tuple[Path, list[Path]]:
    """What a path or glob pattern names, sorted, and the folder that domain folders are looked for below."""
    path = Path(pattern)
    if path.exists():
        return (path if path.is_dir() else path.parent), [path]
    if not glob.has_magic(pattern):
        raise MissingFileError(f"{pattern}: no such file or folder; check the path of this corpus input")
    names = glob.glob(pattern, recursive=True)  # noqa: PTH207 (takes an absolute pattern)
    matches = sorted({_not_within_dataset(Path(name)) for name in names})
    if not matches:
        raise MissingFileError(f"{pattern}: no file matches this pattern; check the path of this corpus input")
    plain = next(index for index, part in enumerate(path.parts) if glob.has_magic(part))
    return Path(*path.parts[:plain]), matches


def _is_saved_dataset(path: Path) -> bool:
    return all((path / name).is_file() for name in _SAVED_DATASET)


def _not_within_dataset(path: Path) -> Path:
    """The saved dataset that a file is part of, else the path itself: ``**`` names the files of one too."""
    return path.parent if _is_saved_dataset(path.parent) else path


def _below(
    path: Path, *, is_named: bool, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[Kind, Path]]:
    """Input files below ``path``, depth first, in sorted order. ``above``: device and inode of folders around it."""
    if path.is_dir():
        if _is_saved_dataset(path):
            yield Kind.DATASET, path
            return
        stat = path.stat()
        if (identity := (stat.st_dev, stat.st_ino)) in above:
            raise InputError(f"{path}: a link to a folder that it lies in: it would be read for ever; remove the link")
        for child in sorted(path.iterdir()):
            if not child.name.startswith("."):
                yield from _below(child, is_named=False, above=above | {identity})
    elif (kind := _kind(path.name, path, is_named=is_named)) is not None:
        _check_regular(path)
        yield kind, path


def _check_regular(path: Path) -> None:
    """Reading a named pipe, a socket or a device would wait for ever, or never end.

    Raises:
        InputError: it is one of them, or a link that leads nowhere.
    """
    if not path.is_file():
        problem = "a link that leads nowhere" if path.is_symlink() else "no regular file (a pipe, socket or device)"
        raise InputError(f"{path}: {problem}, so it cannot be read as a corpus input; remove it, or copy its content")


def _remote(url: str) -> Iterator[Leaf]:
    found = remote.find(url)
    in_folder: dict[str, set[str]] = {}
    for item in found:
        in_folder.setdefault(item.file.parent, set()).add(item.file.name)
    for folder, names in in_folder.items():
        if names.issuperset(_SAVED_DATASET):
            raise InputError(
                f"{folder}: a folder of datasets.save_to_disk is read from a local disk only; copy it, or give its "
                "data as parquet"
            )
    for item in found:
        kind = _kind(item.file.name, item.file, is_named=item.is_named)
        if kind is not None:
            yield Leaf(kind, item.file, item.folders)


def _kind(name: str, source: Source, *, is_named: bool) -> Kind | None:
    """What a file is by its name; other files are refused where named and mentioned where found."""
    if name == "dataset_dict.json":  # the list of splits beside the folders of a saved DatasetDict
        return None
    kind = next((kind for kind, suffixes in _SUFFIXES.items() if name.lower().endswith(suffixes)), None)
    if kind is None and is_named:
        raise InputError(f"{source}: a type of file that is not read; {SUPPORTED}")
    if kind is None:
        logger.info("%s: not read (not a type of input file)", source)
    return kind
