"""Methods by the names that a recipe has for them. A new one is a file in this package and a line in `METHODS`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from doremi.config import explain
from doremi.errors import InputError, first_line, shown
from doremi.methods.doremi import DoReMi
from doremi.methods.fixed import WITHOUT_FLOOR, Fixed, InPlace, WithoutFloor
from doremi.methods.protocol import Answer, Bench, Method, Outcome, Policy, Run
from doremi.weights import specs

METHODS: dict[str, type[BaseModel]] = {"doremi": DoReMi}
RULES_WITH_A_NUMBER = ("temperature", "unimax")
_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

Entry = str | Mapping[str, Any]  # a name, or {name: options}, with a label beside it where that is to be another


class Named(NamedTuple):
    """A method of a recipe."""

    label: str  # in tables, folders and results
    name: str  # of the method
    method: Method


def read(entries: Sequence[Entry]) -> tuple[Named, ...]:
    """The methods that a recipe compares, in its order.

    Args:
        entries: each a rule, published weights, a file or a method by name; ``{name: options}`` of a method with
            options, ``{file: path}``, ``{weights: {domain: weight}}``; ``package.module:Class`` of your own, which runs
            with your rights. ``label`` beside the name says what it is called.

    Raises:
        InputError: no such method, wrong options, or two of the same label.
    """
    methods = [_named(entry, position) for position, entry in enumerate(entries)]
    doremi = next((item.method for item in methods if isinstance(item.method, DoReMi)), DoReMi())
    methods = [
        item._replace(method=WithoutFloor(doremi)) if isinstance(item.method, WithoutFloor) else item
        for item in methods
    ]
    labels: dict[str, int] = {}
    for position, item in enumerate(methods):
        if item.label in labels:
            raise InputError(
                f"methods.{position}: the label {item.label!r} is that of methods.{labels[item.label]}; give one of "
                "them another: {" + f"{item.name}: ..., label: NAME" + "}"
            )
        labels[item.label] = position
    return tuple(methods)


def resolved(entries: Sequence[Entry]) -> list[Entry]:
    """The same entries with every option of a named method written out."""
    return [_resolved(entry) for entry in entries]


def _resolved(entry: Entry) -> Entry:
    name, options, label = _parts(entry, 0)
    if name not in METHODS:
        return entry
    written = {name: METHODS[name].model_validate(options or {}).model_dump(mode="json")}
    return written if label is None else written | {"label": label}


def _named(entry: Entry, position: int) -> Named:
    name, options, label = _parts(entry, position)
    if name in METHODS:
        return Named(label or name, name, _validated(METHODS[name], options or {}, f"methods.{position}.{name}"))
    if _CLASS.fullmatch(name):
        return Named(label or name.partition(":")[2], name, Own(name, options or {}, f"methods.{position}: {name}"))
    if name == WITHOUT_FLOOR and options is None:
        return Named(label or name, name, WithoutFloor())
    spec = _spec(name, options, position)
    return Named(label or ("weights" if isinstance(spec, dict) else specs.label(spec)), name, Fixed(spec))


def _parts(entry: Entry, position: int) -> tuple[str, Any, str | None]:
    """Name, options and label of an entry."""
    if isinstance(entry, str):
        return entry, None, None
    rest = {key: value for key, value in entry.items() if key != "label"}
    label = entry.get("label")
    if len(rest) != 1 or not (label is None or (isinstance(label, str) and label)):
        raise InputError(
            f"methods.{position}: {shown(dict(entry))}; expected a name, or one name with its options, such as "
            "{doremi: {seeds: 3}} or {file: weights.json, label: mine}"
        )
    (name, options), *_ = rest.items()
    return name, options, label


def _spec(name: str, options: Any, position: int) -> specs.WeightsSpec:
    if name == "file" and isinstance(options, str):
        return options
    if name == "weights" and isinstance(options, dict):
        return options
    if name in RULES_WITH_A_NUMBER and isinstance(options, int | float):
        return f"{name}({options:g})"
    if options is not None:
        raise InputError(
            f"methods.{position}: {name}: {shown(options)}; methods with options are {', '.join(METHODS)}, file "
            f"(a path), weights (a mapping), {' and '.join(RULES_WITH_A_NUMBER)} (a number)"
        )
    return name


def _validated(section: type[BaseModel], options: Any, key: str) -> Any:
    try:
        return section.model_validate(options)
    except ValidationError as error:
        lines = [explain(detail, section, prefix=key) for detail in error.errors()]
        raise InputError("; ".join(lines)) from None


@dataclass(frozen=True)
class Own:
    """A class of the user's: a method, or a policy that runs in the main model.

    Its module is imported when it is first used, and not when a recipe is read: whoever looks at somebody's run
    directory runs none of its code.
    """

    name: str  # package.module:Class
    options: Mapping[str, Any]
    key: str  # of the recipe, for messages

    def ask(self, bench: Bench, done: Collection[Outcome]) -> Sequence[Run]:
        """As the user's method does."""
        return self.method.ask(bench, done)

    def answer(self, bench: Bench, done: Collection[Outcome]) -> Answer:
        """As the user's method does."""
        return self.method.answer(bench, done)

    @cached_property
    def method(self) -> Method:
        """The method itself.

        Raises:
            InputError: there is no such class, it refuses the options, or it is neither a method nor a policy.
        """
        module, _, attribute = self.name.partition(":")
        try:
            own = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise InputError(f"{self.key}: {first_line(error)}; is it installed, or on PYTHONPATH?") from None
        made = self._made(own)
        if isinstance(made, Method):
            return made
        if isinstance(made, Policy):
            return InPlace(made)
        raise InputError(f"{self.key}: neither a method (ask, answer) nor a policy; see doremi.methods.protocol")

    def _made(self, own: Any) -> Any:
        if isinstance(own, type) and issubclass(own, BaseModel):
            return _validated(own, dict(self.options), self.key)
        try:
            return own(**self.options)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.key}: {first_line(error)}") from None
