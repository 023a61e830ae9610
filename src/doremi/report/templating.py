"""The templates of the pages: where they lie, and how numbers and names get into them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from doremi.report import numbers
from doremi.text import visible


@cache
def environment() -> Environment:
    """Templates that escape what they are given, with `numbers` as filters in the signs of print."""
    found = Environment(
        loader=PackageLoader("doremi.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    formats = (
        numbers.count, numbers.duration, numbers.epochs, numbers.factor,
        numbers.nats, numbers.p_value, numbers.percent, numbers.signed, numbers.whole,
    )  # fmt: skip
    found.filters.update({format_.__name__: _typeset(format_) for format_ in formats})
    found.filters |= {
        "visible": visible,
        "interval": _typeset(numbers.interval),
        "interval_of_factor": _typeset(partial(numbers.interval, format_=numbers.factor)),
        "interval_of_percent": _typeset(partial(numbers.interval, format_=numbers.percent)),
    }
    return found


def _typeset(format_: Callable[[Any], str]) -> Callable[[Any], str]:
    """The same number with the signs of print instead of those of a terminal."""

    def typeset(value: Any) -> str:
        text = format_(value)
        return "–" if text == numbers.MISSING else text.replace("-", "−").replace("x", "×")

    return typeset


def source(name: str) -> str:
    """The text of a style sheet or script beside the templates."""
    return (resources.files("doremi.report") / "templates" / name).read_text(encoding="utf-8")
