"""From the recipe's inputs to input files: which files, which domain, which side of the split."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from doremi import files, redaction
from doremi.corpus.config import CorpusConfig, InputConfig, SetConfig, Split
from doremi.corpus.reading import hub, parquet
from doremi.corpus.reading.hub import HubPart
from doremi.corpus.reading.listing import Kind, Leaf, leaves
from doremi.corpus.reading.parquet import RowGroups
from doremi.corpus.reading.sources import Source, identity, num_bytes
from doremi.errors import InputError, shown, text_problem

logger = logging.getLogger(__name__)

_SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class InputFile:
    """What is read from beginning to end, once; `doremi.corpus.reading.grouping` makes units of work of them.

    A file, all text files of a domain, consecutive row groups of a large parquet file, or one file of a hub dataset. A
    recipe always gives the same ones for the same files: shards, and so digests, follow them.
    """

    kind: Kind
    config: InputConfig
    paths: tuple[Source, ...] = ()  # one, but all documents of a domain for TEXT and none for READER
    domain: str | None = None  # or the evaluation set; None: each record names its own
    split: Split | None = None  # None: each document by the hash of its content
    dataset: Any = None  # a datasets.Dataset already in memory
    part: RowGroups | HubPart | None = None  # None: all of it

    def __post_init__(self) -> None:
        if self.domain is not None:
            files.encode_name(self.domain)  # refuses an impossible one now, not when its first shard is named

    @property
    def name(self) -> str:
        """How messages call it."""
        if self.kind is Kind.READER:
            return f"reader {self.config.reader}"
        if isinstance(self.part, HubPart):
            assert self.config.dataset is not None
            return f"dataset {self.config.dataset.name}, file {self.part.number + 1} of {self.part.num_parts}"
        if not self.paths:
            return f"dataset {self.domain}"
        name: str = redaction.identity_of_path(str(self.paths[0] if len(self.paths) == 1 else self.paths[0].parent))
        return name  # without a password: it is written into the store

    @property
    def is_evaluated(self) -> bool:
        """Whether its place says that all of it is evaluated on, and none of it trained on."""
        return self.split in ("held_out", "set")

    @property
    def short_name(self) -> str:
        """`name` without the folders that it lies in, which do not belong into a store."""
        return self.name.rpartition("/")[2] if self.paths else self.name

    def stats(self) -> list[list[int | str]]:
        """What tells whether an input changed between two runs: size and version of each file (`sources.identity`), and
        which part of it this is.
        """
        part: list[list[int | str]] = [] if self.part is None else [[*map(str, self.part)]]
        return [*map(identity, self._files()), *part]

    def num_bytes(self) -> int:
        """Size as it is stored; 0 where it is not known."""
        if isinstance(self.part, RowGroups):
            return self.part.num_bytes
        return sum(map(num_bytes, self._files()))

    def _files(self) -> Iterator[Source]:
        for path in self.paths:
            yield from sorted(path.iterdir()) if isinstance(path, Path) and path.is_dir() else [path]


Commits = Mapping[str, str]  # of datasets of the hub, by `_dataset_key`


def pinned_commits(inputs: Sequence[InputFile]) -> Commits:
    """The commits that branches of datasets of the hub stood for when ``inputs`` were listed."""
    parts = [(file.config, file.part) for file in inputs if isinstance(file.part, HubPart)]
    return {_dataset_key(config): part.commit for config, part in parts if part.commit is not None}


def input_files(
    config: CorpusConfig, *, sets: Sequence[SetConfig] = (), commits: Commits = MappingProxyType({})
) -> list[InputFile]:
    """Every input file of a recipe, held-out ones first: training documents are checked against their hashes.

    Files of evaluation sets come last, so that the shards of the domains are those of a recipe without sets.

    Args:
        config: of the corpus.
        sets: text that is stored with it, to evaluate on.
        commits: those of a preparation that was begun, which goes on with them wherever the branches are now.

    Raises:
        MissingFileError: a path that does not exist, a pattern that matches nothing, a dataset that cannot be had.
        InputError: a file of a type that cannot be read, no domain for a file, text that would be read twice.
    """
    training = [file for item in config.inputs for file in _expand(item, commits, place=_place)]
    if config.held_out_inputs:
        training = [replace(file, split=file.split or "train") for file in training]
    held_out = [
        replace(file, split="held_out")
        for item in config.held_out_inputs
        for file in _expand(item, commits, place=_place)
    ]
    for files_of_a_side in (training, held_out):
        _check_distinct(files_of_a_side)
    return [*sorted([*held_out, *training], key=lambda file: file.split != "held_out"), *_set_files(sets, commits)]


def _set_files(sets: Sequence[SetConfig], commits: Commits) -> list[InputFile]:
    found = [
        replace(file, domain=item.name, split="set")
        for item in sets
        for file in _expand(item.as_input(), commits, place=_all_of_it)
    ]
    for name in dict.fromkeys(item.name for item in sets):
        _check_distinct([file for file in found if file.domain == name])
    return found


def _check_distinct(found: Sequence[InputFile]) -> None:
    """Refuse the same text of the same file twice, by whatever names: the corpus would silently hold it twice.

    Fields of one file may be inputs of their own, such as question and answer.

    Raises:
        InputError: names both.
    """
    seen: dict[tuple[Any, ...], str] = {}
    for file in found:
        for place, name in _places(file):
            if problem := text_problem(name):
                raise InputError(f"{shown(name)} {problem}")
            other = seen.setdefault((place, file.config.text_field, file.config.ids_field, file.part), name)
            if other is not name:
                same = "" if other == name else f" is the same file as {other}, and"
                raise InputError(
                    f"{name}:{same} is an input twice, so that its text would count twice; name it once (patterns may "
                    "overlap, links lead to the same file). To see a domain more often, give it more weight"
                )


def _places(file: InputFile) -> Iterator[tuple[object, str]]:
    """What tells the sources of an input from all others, and how messages call them; links are their targets."""
    for source in file.paths:
        if isinstance(source, Path):
            stat = source.stat()
            yield (stat.st_dev, stat.st_ino), str(source)
        else:
            yield source.url, str(source)
    if not file.paths:
        yield (file.config.reader or file.config.dataset), file.name


def _expand(config: InputConfig, commits: Commits, *, place: Placing) -> list[InputFile]:
    if config.reader is not None:
        return [InputFile(Kind.READER, config)]
    if config.dataset is not None:
        parts = hub.divide(config.dataset, commit=commits.get(_dataset_key(config)))
        return [InputFile(Kind.HUB_DATASET, config, domain=config.domain, part=part) for part in parts]
    assert config.path is not None  # the recipe gives one of the three
    placed = [_input_file(config, *found) for found in place(leaves(config.path))]
    return [unit for file in _grouped([file for file in placed if file is not None]) for unit in _divided(file)]


def _dataset_key(config: InputConfig) -> str:
    assert config.dataset is not None
    return config.dataset.model_dump_json()


class _Place(NamedTuple):
    leaf: Leaf
    domain_folder: str | None
    split_folder: str | None


def _place(found: Sequence[Leaf]) -> Iterator[_Place]:
    """What the folders of each file say: ``[split/]domain[/shard]``.

    The first folders are splits only if all of them are called so; a domain may be named ``test``.
    """
    in_splits = all(leaf.folders and leaf.folders[0] in _SPLIT_FOLDERS for leaf in found)
    for leaf in found:
        split = _SPLIT_FOLDERS[leaf.folders[0]] if in_splits else None
        below = leaf.folders[1:] if in_splits else leaf.folders
        yield _Place(leaf, below[0] if below else None, split)


def _all_of_it(found: Sequence[Leaf]) -> Iterator[_Place]:
    """Whatever the folders of an evaluation set are called, all of it is read."""
    for leaf in found:
        yield _Place(leaf, None, None)


Placing = Callable[[Sequence[Leaf]], Iterator[_Place]]


def _input_file(
    config: InputConfig, leaf: Leaf, domain_folder: str | None, split_folder: str | None
) -> InputFile | None:
    is_given = config.domain is not None or config.domain_field is not None
    domain = config.domain if is_given else domain_folder
    if domain is None and config.domain_field is None:
        raise InputError(
            f"{leaf.source}: no domain for this input; set `domain` to one name, `domain_field` to the field of a "
            "record that names it, or put the files into one folder per domain and give the folder above"
        )
    if config.domain_field is not None and leaf.kind is Kind.TEXT:
        raise InputError(f"{leaf.source}: a text file has no field {config.domain_field!r}; use `domain` or folders")
    if split_folder == "test":
        logger.warning("%s: not read: the test split is neither trained on nor evaluated", leaf.source)
        return None
    split: Split | None = "held_out" if split_folder == "validation" else None
    return InputFile(leaf.kind, config, (leaf.source,), domain, split)


def _grouped(found: Sequence[InputFile]) -> list[InputFile]:
    """Text files of one domain as one input file; folders' own train split, where there is a held-out one."""
    has_held_out = any(file.split == "held_out" for file in found)
    first: dict[tuple[Any, ...], InputFile] = {}
    paths: dict[tuple[Any, ...], list[Source]] = {}
    for file in found:
        placed = replace(file, split=file.split or "train") if has_held_out else file
        key = (file.domain, placed.split) if file.kind is Kind.TEXT else (file.paths,)
        paths.setdefault(key, []).extend(file.paths)
        first.setdefault(key, placed)
    return [replace(file, paths=tuple(paths[key])) for key, file in first.items()]


def _divided(file: InputFile) -> list[InputFile]:
    if file.kind is not Kind.PARQUET:
        return [file]
    return [replace(file, part=part) for part in parquet.divide(file.paths[0])]
