"""What a recipe may hold at all, whatever its keys mean: checked before any key is looked at.

YAML has dates, binaries, sets, infinities and integers without end, and text that no path can be. None of them is of
use in a recipe, and each is a traceback somewhere if it gets further.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from doremi.errors import shown, text_problem

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
