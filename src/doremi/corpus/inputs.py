"""From the recipe's inputs to input files, the units of work: which files, which domain, which side of the split."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

from doremi.corpus.manifest import Split
from doremi.errors import InputError, MissingFileError
from doremi.recipe import CorpusConfig, InputConfig

logger = logging.getLogger(__name__)


class Kind(Enum):
    """What an input file is."""

    JSON_LINES = auto()
    TEXT = auto()
    PARQUET = auto()
    DATASET = auto()
    READER = auto()


_SUFFIXES = {
    Kind.JSON_LINES: (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst"),
    Kind.TEXT: (".txt", ".txt.gz", ".txt.zst"),
    Kind.PARQUET: (".parquet",),
}
_SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class InputFile:
    """One unit of work: read once, and finished when its own marker is written."""

    kind: Kind
    config: InputConfig
    paths: tuple[Path, ...] = ()  # one, but all documents of a domain for TEXT and none for READER
    domain: str | None = None  # None: each record names its own
    split: Split | None = None  # None: each document by the hash of its content
    dataset: Any = None  # a datasets.Dataset already in memory

    @property
    def name(self) -> str:
        """How messages call it."""
        if self.kind is Kind.READER:
            return f"reader {self.config.reader}"
        if not self.paths:
            return f"dataset {self.domain}"
        return str(self.paths[0] if len(self.paths) == 1 else self.paths[0].parent)

    def stats(self) -> list[list[int]]:
        """[bytes, modification time in ns] of every file, to notice that an input changed between two runs."""
        found = [path.stat() for path in self._files()]
        return [[stat.st_size, stat.st_mtime_ns] for stat in found]

    def num_bytes(self) -> int:
        """Size on disk; 0 where there is no file."""
        return sum(path.stat().st_size for path in self._files())

    def _files(self) -> Iterator[Path]:
        for path in self.paths:
            yield from sorted(path.iterdir()) if path.is_dir() else [path]


def input_files(config: CorpusConfig) -> list[InputFile]:
    """Every input file of a recipe, held-out ones first: training documents are checked against their hashes.

    Raises:
        MissingFileError: a path that does not exist, a pattern that matches nothing.
        InputError: a file of a type that cannot be read, no domain for a file.
    """
    training = [file for item in config.inputs for file in _expand(item)]
    if config.held_out_inputs:
        training = [replace(file, split=file.split or "train") for file in training]
    held_out = [replace(file, split="held_out") for item in config.held_out_inputs for file in _expand(item)]
    return sorted([*held_out, *training], key=lambda file: file.split != "held_out")


def _expand(config: InputConfig) -> list[InputFile]:
    if config.path is None:
        return [InputFile(Kind.READER, config)]
    top, matches = _matches(config.path)
    found = [leaf for match in matches for leaf in _leaves(match, explicit=match.is_file())]
    if not found:
        raise MissingFileError(f"{config.path}: no input file in it; {_supported()}")
    placed = list(_place(top, found))
    return _grouped([file for file in (_input_file(config, *place) for place in placed) if file is not None])


def _matches(pattern: str) -> tuple[Path, list[Path]]:
    """What a path or glob pattern names, sorted, and the folder that domain folders are looked for below."""
    path = Path(pattern)
    if path.exists():
        return (path if path.is_dir() else path.parent), [path]
    if not glob.has_magic(pattern):
        raise MissingFileError(f"{pattern}: no such file or folder; check the path of this corpus input")
    matches = sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207 (takes an absolute pattern)
    if not matches:
        raise MissingFileError(f"{pattern}: no file matches this pattern; check the path of this corpus input")
    plain = next(index for index, part in enumerate(path.parts) if glob.has_magic(part))
    return Path(*path.parts[:plain]), matches


def _leaves(path: Path, *, explicit: bool) -> Iterator[tuple[Kind, Path]]:
    """Input files below ``path`` in sorted order; other files are refused where named and mentioned where found."""
    kind = _kind(path)
    if kind is not None:
        yield kind, path
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            if not child.name.startswith("."):
                yield from _leaves(child, explicit=False)
    elif explicit:
        raise InputError(f"{path}: a type of file that is not read; {_supported()}")
    else:
        logger.info("%s: not read (not a type of input file)", path)


def _kind(path: Path) -> Kind | None:
    if path.is_dir():
        is_dataset = (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
        return Kind.DATASET if is_dataset else None
    if path.name == "dataset_dict.json":  # the list of splits beside the folders of a saved DatasetDict
        return None
    name = path.name.lower()
    return next((kind for kind, suffixes in _SUFFIXES.items() if name.endswith(suffixes)), None)


def _supported() -> str:
    suffixes = " ".join(suffix for group in _SUFFIXES.values() for suffix in group)
    return f"supported: {suffixes} and folders of datasets.save_to_disk"


def _place(top: Path, found: Sequence[tuple[Kind, Path]]) -> Iterator[tuple[Kind, Path, str | None, str | None]]:
    """(kind, path, folder that names the domain, split folder) of each: ``top/[split/]domain[/shard]``.

    The first folders are splits only if all of them are called so; a domain may be named ``test``.
    """
    folders = [(path if kind is Kind.DATASET else path.parent).relative_to(top).parts for kind, path in found]
    in_splits = all(parts and parts[0] in _SPLIT_FOLDERS for parts in folders)
    for (kind, path), parts in zip(found, folders, strict=True):
        split = _SPLIT_FOLDERS[parts[0]] if in_splits else None
        below = parts[1:] if in_splits else parts
        yield kind, path, (below[0] if below else None), split


def _input_file(
    config: InputConfig, kind: Kind, path: Path, folder: str | None, split_folder: str | None
) -> InputFile | None:
    domain = config.domain if config.domain or config.domain_field else folder
    if domain is None and config.domain_field is None:
        raise InputError(
            f"{path}: no domain for this input; set `domain` to one name, `domain_field` to the field of a record that "
            "names it, or put the files into one folder per domain and give the folder above"
        )
    if config.domain_field is not None and kind is Kind.TEXT:
        raise InputError(f"{path}: a text file has no field {config.domain_field!r}; use `domain` or folders")
    if split_folder == "test":
        logger.warning("%s: not read: the test split is neither trained on nor evaluated", path)
        return None
    split: Split | None = "held_out" if split_folder == "validation" else None
    return InputFile(kind, config, (path,), domain, split)


def _grouped(files: Sequence[InputFile]) -> list[InputFile]:
    """Text files of one domain as one unit of work; folders' own train split, where there is a held-out one."""
    has_held_out = any(file.split == "held_out" for file in files)
    units: dict[tuple[Any, ...], InputFile] = {}
    for file in files:
        placed = replace(file, split=file.split or "train") if has_held_out else file
        key = (file.domain, placed.split) if file.kind is Kind.TEXT else (file.paths,)
        units[key] = replace(placed, paths=(*units[key].paths, *file.paths)) if key in units else placed
    return list(units.values())
