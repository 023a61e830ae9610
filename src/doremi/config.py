"""What a recipe may hold at all, whatever its keys mean: checked before any key is looked at.

YAML has dates, binaries, sets, infinities and integers without end, and text that no path can be. None of them is of
use in a recipe, and each is a traceback somewhere if it gets further.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import ErrorDetails

from doremi.errors import shorten, shown, text_problem

LARGEST_INTEGER = 2**64
# No machine has room or time for more: above these, a plan takes for ever and a run fails in its first step.
MAX_COUNT = 10**12
MAX_STEPS = 10**9
MAX_ROWS = 2**20  # in a batch
MAX_TOKENS = 2**24  # in a row
MAX_MODELS = 1000  # of one kind
MAX_PROCESSES = 4096  # or threads, on one machine
_SCIENTIFIC = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")  # YAML 1.1 takes 1e-3 for text, 1.0e-3 for a number


def _number(value: object) -> object:
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


def _whole_number(value: object) -> object:
    value = _number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


Number = Annotated[float, BeforeValidator(_number)]
WholeNumber = Annotated[int, BeforeValidator(_whole_number)]
Count = Annotated[WholeNumber, Field(le=MAX_COUNT)]
RunName = Literal["reference", "proxy", "main"]
RUNS: tuple[RunName, ...] = get_args(RunName)


class Section(BaseModel):
    """A frozen part of the recipe that refuses keys it does not know, and values of another type than their own."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), strict=True, allow_inf_nan=False)


def problems(content: Any, key: str = "") -> Iterator[str]:
    """A line for each value, at any depth, that no recipe can hold."""
    if isinstance(content, dict):
        for name, value in content.items():
            if not isinstance(name, str):
                yield f"{key or 'recipe'}: {shown(name)} is no key; keys are text, put quotes around it"
            elif problem := text_problem(name):
                yield f"{key or 'recipe'}: the key {shown(name)} {problem}"
            else:
                yield from problems(value, f"{key}.{name}" if key else name)
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from problems(value, f"{key}.{index}")
    elif problem := _problem(content):
        yield f"{key}: {problem}"


def _problem(value: Any) -> str | None:
    """What is wrong with a single value."""
    if isinstance(value, str):
        return f"{shown(value)} {problem}" if (problem := text_problem(value)) else None
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not finite; give a number"
    if isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
        return f"{shown(value)} is beyond all sense; at most 20 digits"
    if value is None or isinstance(value, bool | int | float):
        return None
    return f"{shown(value)} is a {type(value).__name__}; if it is meant as text, put quotes around it"


def expand_home(content: Any) -> Any:
    """The same with ``~/`` at the beginning of a text replaced by the home folder, as a shell does."""
    if isinstance(content, dict):
        return {key: expand_home(value) for key, value in content.items()}
    if isinstance(content, list):
        return [expand_home(value) for value in content]
    if isinstance(content, str) and content.startswith("~/"):
        return str(Path.home()) + content[1:]
    return content


def section_in(annotation: Any) -> type[Section] | None:
    """The section that an annotation is of, or of a list of; None: neither."""
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Section)), None)


def is_list(annotation: Any) -> bool:
    """Whether an annotation is that of a list."""
    return getattr(annotation, "__origin__", None) is list


def explain(detail: ErrorDetails, section: type[BaseModel], *, prefix: str = "") -> str:
    """One line for a value that ``section`` refuses: its key, what is wrong with it, the nearest valid key."""
    *sections, last = detail["loc"] or ("",)  # which has the types of a union in it too, such as dict[str,float]
    location = [*(part for part in sections if isinstance(part, int) or part.isidentifier()), last]
    if detail["type"] not in ("extra_forbidden", "missing"):
        location = [part for part in location if isinstance(part, int) or part.isidentifier()]
    key = ".".join([*([prefix] if prefix else []), *(shorten(str(part), 80) for part in location)])
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key; {_nearest(location, section)}"
    if detail["type"] == "missing":
        return f"{key}: required, but missing"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message} (got {shown(detail['input'])})"


def _nearest(location: Sequence[int | str], section: type[BaseModel]) -> str:
    """Advice for an unknown key: the nearest valid one of the same section, or else the list of them."""
    for part in location[:-1]:
        if isinstance(part, str) and part in section.model_fields:
            section = section_in(section.model_fields[part].annotation) or section
    valid = list(section.model_fields)
    close = difflib.get_close_matches(str(location[-1]), valid, n=1)
    return f"did you mean {close[0]}?" if close else f"valid keys here: {', '.join(valid)}"
