"""What the command line prints to people: stage lines on stderr, results on stdout."""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Mapping

from doremi.report.escaping import visible

BAR_WIDTH = 40


def configure_logging() -> None:
    """Our own messages on stderr, plain; other libraries' only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("doremi").setLevel(logging.INFO)


def weights_table(weights: Mapping[str, float]) -> str:
    """One line a domain, largest first, with a bar."""
    width = max(len(visible(name)) for name in weights)
    largest = max(weights.values())
    return "\n".join(
        f"{visible(name):<{width}}  {weight:8.4f}  {'#' * round(BAR_WIDTH * weight / largest)}".rstrip()
        for name, weight in sorted(weights.items(), key=lambda item: -item[1])
    )


def recipe_help() -> str:
    """Every key of a recipe with its default and description."""
    from doremi.recipe import describe_fields

    lines = ["Keys of a recipe (YAML), with their defaults; [] marks an item of a list.", ""]
    for key, default, description in describe_fields():
        lines.append(key + (f" = {default}" if default not in ("", "required") else f" ({default})" if default else ""))
        lines.append(textwrap.fill(description, width=96, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines)
