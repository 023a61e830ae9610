"""The two ways a run can end badly that are not our own bugs. The CLI turns them into exit codes."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable

MAX_MESSAGE_CHARACTERS = 4_000  # a recipe with forty mistakes fits; 2 GB of somebody's data do not
MAX_VALUE_CHARACTERS = 80


class _Bounded(Exception):
    """An exception whose message is never longer than `MAX_MESSAGE_CHARACTERS`, whatever was put into it."""

    def __str__(self) -> str:
        return shorten(super().__str__(), MAX_MESSAGE_CHARACTERS)


class InputError(_Bounded, ValueError):
    """What the user gave cannot be used: exit code 2, no traceback.

    The message says what was wrong, which value, which rule, and what to do. The middle of one that is too long is
    left out: what was wrong stands at its beginning, what to do at its end.
    """


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that the user named does not exist: exit code 2."""


class RunFailedError(_Bounded, RuntimeError):
    """A run that began well cannot go on (non-finite loss, failed verification): exit code 1."""


class NotFiniteError(RunFailedError):
    """A loss, a weight or a gradient is not finite: the same run would fail again in the same way."""


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says, without the full stop; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def install_hint(extra: str) -> str:
    """How to install an optional part of this package, for messages. The distribution's name is not the import's."""
    return f"pip install 'doremi-mixture[{extra}]', in a clone pip install '.[{extra}]'"


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a value that is not one of a few.

    Raises:
        InputError: names the setting, its value and what it may be.
    """
    choices = tuple(choices)
    if value not in choices:
        raise InputError(f"{name} is {shown(value)}; it must be one of {', '.join(map(repr, choices))}")


def text_problem(text: str) -> str | None:
    """Why a text from outside can be neither a path nor written anywhere, if that is so."""
    if "\0" in text:
        return "has a NUL character, which no path, name or text can have; take it out"
    if any("\ud800" <= char <= "\udfff" for char in text):
        return "is no valid Unicode (a name that is not UTF-8?); rename it"
    return None


def shown(value: object) -> str:
    """A value of the user as a message shows it: its repr, at most `MAX_VALUE_CHARACTERS` long.

    Takes the same short time for a value of any size: the repr of the whole is never made.
    """
    return shorten(_repr.repr(value), MAX_VALUE_CHARACTERS)


def shorten(text: str, max_characters: int) -> str:
    """The beginning and the end of ``text``, with the number of characters left out between them; short text as it is.

    The result is at most ``max_characters`` long, which must be 40 at least.
    """
    if len(text) <= max_characters:
        return text
    kept = max_characters - len(_omission(len(text)))
    head, tail = kept - kept // 3, kept // 3
    return f"{text[:head]}{_omission(len(text) - head - tail)}{text[len(text) - tail :]}"


def _omission(num_characters: int) -> str:
    return f" ...[{num_characters:,} characters]... "


class _ValueRepr(reprlib.Repr):
    """Looks at the ends of long texts and at the first items of containers."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 6
        self.maxother = MAX_VALUE_CHARACTERS

    def repr_str(self, text: str, level: int) -> str:
        return repr(shorten(text, MAX_VALUE_CHARACTERS - 2))

    def repr_bytes(self, data: bytes, level: int) -> str:
        return repr(data) if len(data) <= MAX_VALUE_CHARACTERS else f"{data[:40]!r}... ({len(data):,} bytes)"

    def repr_int(self, number: int, level: int) -> str:
        """Python refuses to write more than 4,300 digits."""
        return repr(number) if number.bit_length() <= 128 else f"an integer of {number.bit_length():,} bits"


_repr = _ValueRepr()
