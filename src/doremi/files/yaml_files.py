"""YAML from strangers: a safe loader that refuses what would take gigabytes, minutes or the whole stack.

PyYAML itself bounds neither aliases (1 kB can stand for 10^9 values), nor depth (its composer recurses), nor size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from doremi import files
from doremi.errors import InputError, MissingFileError, shorten

MAX_BYTES = 1_000_000  # of a file: a recipe with the weights of ten thousand domains has a third of that
MAX_DEPTH = 50
MAX_CHARACTERS = 4_000_000  # of all values once every alias is replaced by what it stands for


class LimitedLoader(yaml.SafeLoader):
    """`yaml.SafeLoader` with limits on depth and on what aliases expand to; whatever it refuses is a `YAMLError`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node and what is below it; called once for each level of nesting."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _refusal(f"nested more than {MAX_DEPTH} deep", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> Any:
        """The whole document as nodes, in which an alias is its target once more."""
        node = super().get_single_node()
        if node is not None:
            _expanded_size(node, {})
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """A value; what looks like a date or a number and is none is refused with its line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, LookupError, AttributeError, TypeError) as error:
            problem = f"{shorten(str(node.value), 60)!r} is not what it looks like: {error}; put quotes around text"
            raise _refusal(problem, node.start_mark) from None


class UniqueKeyLoader(LimitedLoader):
    """A `LimitedLoader` that refuses a key given twice in one mapping, of which PyYAML silently takes the last."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        """A mapping as it is written; what ``<<`` merges into it may be given again."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (line := lines.get((key.tag, key.value))) is not None:
                problem = f"key {shorten(key.value, 60)!r} is given twice, first in line {line}; take one of them out"
                raise _refusal(problem, key.start_mark)
            lines[key.tag, key.value] = key.start_mark.line + 1
        return node


def load(text: str, *, source: str, loader: type[LimitedLoader] = UniqueKeyLoader) -> Any:
    """The value that ``text`` holds; no key may be given twice in a mapping.

    Args:
        text: one YAML document.
        source: where it comes from, for messages.
        loader: `UniqueKeyLoader`, or a `LimitedLoader` with constructors of its own.

    Raises:
        InputError: not YAML, or beyond one of the limits; the message gives line and column.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{source}: longer than {MAX_BYTES:,} characters: no recipe is; is it the right file?")
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        raise InputError(f"{source}: not valid YAML: {_explained(error)}") from None


def read(path: Path, *, loader: type[LimitedLoader] = UniqueKeyLoader) -> Any:
    """The value in a YAML file, of which no more than `MAX_BYTES` are ever read.

    Raises:
        MissingFileError: there is no such file.
        InputError: as `load`; a folder; not UTF-8.
    """
    try:
        with files.reading(path), path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, expected a YAML file") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: longer than {MAX_BYTES:,} bytes, expected a YAML file; is it the right file?")
    try:
        return load(data.decode("utf-8"), source=str(path), loader=loader)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start + 1}), expected a YAML file") from None


def _expanded_size(node: Any, known: dict[int, int]) -> int:
    """Characters of a node, those behind aliases counted each time; each node is looked at once."""
    if (size := known.get(id(node))) is not None:
        if size < 0:
            raise _refusal("an alias stands within what it stands for", node.start_mark)
        return size
    known[id(node)] = -1  # until all below it is counted
    size = 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else _sum_of_sizes(_children(node), known))
    if size > MAX_CHARACTERS:
        problem = f"more than {MAX_CHARACTERS:,} characters once its aliases are replaced by what they stand for"
        raise _refusal(problem, node.start_mark)
    known[id(node)] = size
    return size


def _sum_of_sizes(nodes: Iterator[Any], known: dict[int, int]) -> int:
    return sum(_expanded_size(node, known) for node in nodes)


def _children(node: Any) -> Iterator[Any]:
    for item in node.value:
        yield from item if isinstance(item, tuple) else (item,)


def _refusal(problem: str, mark: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _explained(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = shorten(getattr(error, "problem", None) or " ".join(str(error).split()) or "cannot be parsed", 300)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
