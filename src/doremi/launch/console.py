"""What the command line prints to people: stage lines on stderr, results on stdout."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import textwrap
from typing import TextIO

from doremi.launch import processes
from doremi.redaction import redact
from doremi.text import visible

BAR_WIDTH = 40


def show(*texts: object, file: TextIO | None = None, end: str = "\n") -> None:
    """Print texts one below the other; what would move the cursor is written as its escape, secrets are masked."""
    print(*(visible(redact(str(text)), keep="\n\t") for text in texts), sep="\n", end=end, file=file)


class HarmlessFormatter(logging.Formatter):
    """Names in messages come from other people's files, and values from recipes with secrets in them."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without control characters and secrets."""
        return visible(redact(super().format(record)), keep="\n\t")


def configure_logging() -> None:
    """Messages on stderr, plain: our own from the first process alone, warnings of libraries from every one."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HarmlessFormatter(f"{processes.prefix()}%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("doremi").setLevel(logging.INFO if processes.is_first() else logging.ERROR)


def width() -> int | None:
    """Columns of the terminal that standard output goes to; None where it goes elsewhere, and lines may be long."""
    if not (sys.stdout.isatty() or os.environ.get("COLUMNS")):
        return None
    return shutil.get_terminal_size().columns


def wrapped(text: str, *, indent: str = "", first: str | None = None) -> str:
    """A line of text broken to the width of the terminal, where there is one; ``first``: what its first line has."""
    beginning = indent if first is None else first
    columns = width()
    if columns is None:
        return beginning + text
    return textwrap.fill(
        text,
        columns,
        initial_indent=beginning,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def bar_width(*, beside: int) -> int:
    """Columns for the bars of a table whose other columns take ``beside``."""
    columns = width()
    return BAR_WIDTH if columns is None else min(max(columns - beside, 0), BAR_WIDTH)
