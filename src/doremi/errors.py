"""The two ways a run can end badly that are not our own bugs. The CLI turns them into exit codes."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(ValueError):
    """What the user gave cannot be used: exit code 2, no traceback.

    The message says what was wrong, which value, which rule, and what to do.
    """


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that the user named does not exist: exit code 2."""


class RunFailedError(RuntimeError):
    """A run that began well cannot go on (non-finite loss, failed verification): exit code 1."""


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
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")
