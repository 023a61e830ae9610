"""The state of a policy as JSON and back, so that a run goes on with the very same numbers.

A state is a dataclass or NamedTuple of text, numbers, None, tuples, further states, and arrays of float64, int64 or
bool. One that has ``to_dict`` and ``from_dict`` is stored as they say.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from doremi.errors import InputError, shown

DTYPES = (np.float64, np.int64, np.bool_)
SCALARS = (bool, int, float, str, type(None))


@runtime_checkable
class Stored(Protocol):
    """A state that knows its own JSON."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The state that `to_dict` wrote; InputError where it is none."""


def dump(state: Any) -> dict[str, Any]:
    """JSON-able; every number survives JSON exactly. Values that JSON lacks become ``"nan"``, ``"inf"``, ``"-inf"``.

    Raises:
        TypeError: a field of a type that is not stored: a bug of the policy.
    """
    content = _dump(state, type(state).__name__)
    if not isinstance(content, dict):
        raise TypeError(f"a policy's state is a dataclass or NamedTuple, not {type(state).__name__}")
    return content


def restore(template: Any, content: Any) -> Any:
    """The state that `dump` wrote. ``template`` is the policy's state before the first step.

    It gives the type of every field and the shape of every array; an axis of length 0 there may have any length, and an
    empty tuple any scalars. A field ``names`` holds the domains.

    Raises:
        InputError: a field is missing, unknown, or of another type or shape; or it is the state of other domains.
    """
    names = _fields(template).get("names")
    saved = content.get("names") if isinstance(content, Mapping) else None
    if isinstance(saved, list) and tuple(saved) != names:
        raise InputError(f"the saved state of the policy is for domains {shown(tuple(saved))}, this run has {names}")
    return _restore(template, content, type(template).__name__)


def _fields(state: Any) -> dict[str, Any]:
    """The values of a dataclass or NamedTuple by name; of anything else none."""
    if dataclasses.is_dataclass(state):
        return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return dict(zip(state._fields, state, strict=True)) if _is_named_tuple(state) else {}


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _dump(value: Any, where: str) -> Any:
    if isinstance(value, Stored):
        return value.to_dict()
    if dataclasses.is_dataclass(value) or _is_named_tuple(value):
        return {key: _dump(part, f"{where}.{key}") for key, part in _fields(value).items()}
    if isinstance(value, tuple):
        return [_dump(part, where) for part in value]
    if isinstance(value, np.ndarray) and value.dtype in DTYPES:
        return _dump(_nested(value.tolist()), where)
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if type(value) in SCALARS:
        return value
    raise TypeError(f"{where} is {type(value).__name__}; a policy's state holds text, numbers, tuples and arrays")


def _nested(values: Any) -> Any:
    return tuple(map(_nested, values)) if isinstance(values, list) else values


def _restore(template: Any, content: Any, where: str) -> Any:
    if isinstance(template, Stored):
        return type(template).from_dict(content)
    fields = _fields(template)
    if fields:
        if not isinstance(content, Mapping) or content.keys() != fields.keys():
            raise _not_saved(where, content, f"the fields {', '.join(fields)}")
        return type(template)(**{key: _restore(part, content[key], f"{where}.{key}") for key, part in fields.items()})
    if isinstance(template, tuple):
        return _restore_tuple(template, content, where)
    if isinstance(template, np.ndarray):
        return _restore_array(template, content, where)
    return _restore_scalar(template, content, where)


def _restore_tuple(template: tuple[Any, ...], content: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(content, list) or len(template) not in (0, len(content)):
        raise _not_saved(where, content, f"{len(template) or 'any number of'} values")
    parts = template or (None,) * len(content)
    return tuple(_restore(part, each, where) for part, each in zip(parts, content, strict=True))


def _restore_array(template: np.ndarray, content: Any, where: str) -> np.ndarray:
    if content == [] and template.size == 0:
        return template  # [] does not say what the other axes are
    try:
        found = np.array(content, template.dtype)
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or not _may_grow_to(template, found) or _dump(found, where) != content:  # 2 for True, 0.5 for 0
        raise _not_saved(where, content, f"an array of {template.dtype}{list(template.shape)}")
    return found


def _may_grow_to(template: np.ndarray, found: np.ndarray) -> bool:
    return template.ndim == found.ndim and all(
        axis in (0, now) for axis, now in zip(template.shape, found.shape, strict=True)
    )


def _restore_scalar(template: Any, content: Any, where: str) -> Any:
    if isinstance(template, float) and (type(content) in (int, float) or content in ("nan", "inf", "-inf")):
        return float(content)
    if (template is None and type(content) in SCALARS) or type(content) is type(template) is not float:
        return content
    raise _not_saved(where, content, f"of type {type(template).__name__}")


def _not_saved(where: str, content: Any, expected: str) -> InputError:
    return InputError(f"not a saved state of this policy: {where} is {shown(content)}; it must be {expected}")
