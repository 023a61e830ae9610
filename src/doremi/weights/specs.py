"""Weights as a recipe names them, such as ``natural``, ``temperature(2)``, ``paper-280m`` or a file, to numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from doremi import weights
from doremi.errors import InputError, MissingFileError
from doremi.weights import DomainWeights, published, rules

WeightsSpec = str | dict[str, float]

WEIGHTS = "weights.json"  # in a run directory: its answer
RULES = {
    "natural": "by tokens; natural(packed) and natural(padded) count sequences, as upstream does in its two modes",
    "uniform": "1/k each",
    "temperature": "temperature(T): tokens^(1/T)",
    "unimax": "as uniform as max_epochs allows in the main run; unimax(N) for another number of epochs",
}
_CALL = re.compile(r"(\w+)(?:\((.*)\))?")


class Sizes(Protocol):
    """What rules ask of a corpus, as `doremi.corpus.TokenStore` answers it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The domains, in the corpus' order."""

    def num_tokens(self, name: str, /) -> int:
        """Tokens of a domain to train on."""

    def num_sequences(self, name: str, sequence_length: int, /) -> int:
        """Rows of a domain to train on."""

    def with_packing(self, packing: Any, /) -> Self:
        """The same with documents joined to rows, or each in rows of its own."""


@dataclass(frozen=True)
class Setting:
    """What rules are worked out from."""

    store: Sizes
    sequence_length: int  # of the main run
    num_tokens: int  # that the main run is trained on
    max_epochs: float
    epochs: Mapping[str, float]  # by domain, for natural weights


def weights_file(text: str) -> Path | None:
    """The file that ``text`` names: itself, or ``weights.json`` of a run directory; None: neither.

    Raises:
        InputError: a folder without weights.
    """
    path = Path(text)
    if not path.is_dir():
        return path if path.is_file() else None
    within = path / WEIGHTS
    if not within.is_file():
        raise InputError(
            f"{path}: a folder without weights.json; give a weights file, or a run directory whose proxy is trained "
            "(`doremi search RECIPE`)"
        )
    return within


def label(spec: WeightsSpec) -> str:
    """What the weights are called in folders and tables.

    The rule, the stem of a file, the name of a folder, or ``reference`` for a mapping.
    """
    if isinstance(spec, dict):
        return "reference"
    if _rule(spec):
        return spec
    path = Path(spec)
    return path.resolve().name if path.is_dir() else path.stem


def check(spec: WeightsSpec, *, source: str = "weights") -> None:
    """What can be known of weights before there is a corpus; ``source`` is what messages call a mapping.

    Raises:
        InputError: no such rule, name or file, a wrong argument of a rule, or a file without weights.
    """
    rule = _rule(spec) if isinstance(spec, str) else None
    if rule is None:
        given(spec, source=source)
    else:
        _check_argument(*rule)


def resolve(spec: WeightsSpec, setting: Setting, names: Sequence[str]) -> DomainWeights:
    """The weights over ``names``, in the corpus' order of domains and without those of weight 0.

    Raises:
        InputError: no such rule, name or file, a wrong argument, or a domain that is not one of ``names``.
    """
    found = _find(spec, setting, names)
    return DomainWeights({name: found[name] for name in setting.store.names if found.get(name, 0) > 0})


def given(spec: WeightsSpec, *, source: str = "weights") -> DomainWeights | None:
    """Weights that are known without a corpus: a mapping, published ones or those of a file; None: a rule.

    ``source`` is what messages call a mapping.

    Raises:
        InputError: weights that cannot be used.
        MissingFileError: no such rule, name or file.
    """
    if isinstance(spec, dict):
        return DomainWeights(spec, source=source)
    if _rule(spec):
        return None
    if spec in published.names():
        return published.load(spec).weights
    if (path := weights_file(spec)) is not None:
        return DomainWeights.from_json(path)
    known = ", ".join([*RULES, *published.names()])
    raise MissingFileError(f"weights: {spec!r} is neither a file nor one of {known}")


def _find(spec: WeightsSpec, setting: Setting, names: Sequence[str]) -> DomainWeights:
    weights = given(spec)
    if weights is not None:
        return weights.restricted_to(names, source=spec if isinstance(spec, str) else "weights")
    rule = _rule(spec) if isinstance(spec, str) else None
    assert rule is not None
    return _by_rule(*rule, setting, names)


def _rule(spec: str) -> tuple[str, str | None] | None:
    """(rule, its argument); None: not a rule."""
    match = _CALL.fullmatch(spec)
    return (match[1], match[2]) if match and match[1] in RULES else None


def _by_rule(rule: str, argument: str | None, setting: Setting, names: Sequence[str]) -> DomainWeights:
    _check_argument(rule, argument)
    if rule == "natural":
        return rules.natural_with_epochs(_sizes(argument or "tokens", setting, names), epochs=setting.epochs)
    tokens = {name: setting.store.num_tokens(name) for name in names}
    if rule == "temperature":
        return rules.temperature(tokens, temperature=_number(rule, argument))
    if rule == "unimax":
        max_epochs = setting.max_epochs if argument is None else _number(rule, argument)
        return rules.unimax(tokens, budget=setting.num_tokens, max_epochs=max_epochs)
    return weights.uniform(names)


def _check_argument(rule: str, argument: str | None) -> None:
    if rule == "natural" and (argument or "tokens") not in ("tokens", "packed", "padded"):
        raise InputError(f"weights: natural({argument}); it counts tokens, or sequences: packed or padded")
    if rule == "temperature" or (rule == "unimax" and argument is not None):
        _number(rule, argument)
    if rule == "uniform" and argument is not None:
        raise InputError(f"weights: {rule} takes no argument, got {argument!r}")


def _sizes(counting: str, setting: Setting, names: Sequence[str]) -> dict[str, float]:
    store, length = setting.store, setting.sequence_length
    if counting == "tokens":
        return {name: store.num_tokens(name) for name in names}
    opened = store.with_packing("pack" if counting == "packed" else "pad")
    sizes: dict[str, float] = {name: opened.num_sequences(name, length) for name in names}
    if not any(sizes.values()):
        raise InputError(f"weights: natural({counting}): no domain has one sequence of {length} tokens; shorten it")
    return sizes


def _number(rule: str, argument: str | None) -> float:
    try:
        return float(argument or "")
    except ValueError:
        raise InputError(f"weights: {rule} takes a number, such as {rule}(2), got {argument!r}") from None
