"""The blocks of a Markdown document: what they are given shows as text, and no name breaks a table or adds markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from doremi.text import markdown_text, visible

LEFT, RIGHT = "---", "---:"


def paragraph(label: str, text: str) -> str:
    """A line that begins with a word of ours in bold, so that the text cannot begin a heading or a list."""
    return f"**{label}.** {markdown_text(text)}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, num_texts: int = 1) -> str:
    """A table whose first ``num_texts`` columns are text and the others numbers; every cell is escaped here."""
    marks = [LEFT] * num_texts + [RIGHT] * (len(heads) - num_texts)
    lines = [[markdown_text(cell) for cell in row] for row in (heads, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], marks, *lines[1:]))


def code_block(text: str) -> str:
    """A block of code with a fence longer than any in the text."""
    shown = visible(text, keep="\n\t").rstrip("\n")
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{shown}\n{fence}"
