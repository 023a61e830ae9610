"""What every export says of itself: what the weights refer to, what its numbers count, and its warnings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import yaml

from doremi.exporters.mixture import Mixture, Unit
from doremi.text import visible

_COUNTED: dict[Unit, str] = {
    "tokens": "shares of tokens: the weights as they are",
    "sequences": "draws of sequences of one length: the weights as they are",
    "documents": "draws of whole documents: each weight divided by the domain's mean tokens per document, normalised",
    "bytes": "shares of bytes of text",
}


@dataclass(frozen=True)
class Export:
    """Files to be written: name to text. The first is the one that matters; the others help to use it."""

    files: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def facts(mixture: Mixture, unit: Unit) -> dict[str, str]:
    """What the numbers of an export mean, for its header."""
    tokenizer = mixture.tokenizer
    return {
        "weights": mixture.source,
        "refer to": "shares of training tokens under the tokenizer below, one EOS a document included",
        "tokenizer": f"{tokenizer.path} (digest {tokenizer.digest}, vocabulary of {tokenizer.vocab_size:,})",
        "corpus": f"{mixture.corpus} (digest {mixture.corpus_digest})",
        "numbers here": _COUNTED[unit],
    }


def record(mixture: Mixture, unit: Unit) -> dict[str, object]:
    """`facts` and the warnings, for formats of JSON."""
    return {**facts(mixture, unit), "warnings": list(mixture.warnings)}


def comment(mixture: Mixture, unit: Unit, usage: Iterable[str]) -> str:
    """The same as lines that begin with ``#``; no name of a domain or file can end a line early."""
    lines = [
        *(f"{key}: {value}" for key, value in facts(mixture, unit).items()),
        *(f"warning: {warning}" for warning in mixture.warnings),
        *usage,
    ]
    return "".join(f"# {visible(line)}\n" for line in lines)


class _Dumper(yaml.SafeDumper):
    """SafeDumper, but a text with characters that do not show is quoted: it writes U+0085 plain and reads a space."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if visible(text) == text else '"')


_Dumper.add_representer(str, _text_node)


def yaml_text(content: object) -> str:
    """YAML in the order given, whatever a domain is called."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 20)
    return text


def python_dict(name: str, values: Mapping[str, object]) -> str:
    """``NAME = {...}``, a domain a line."""
    return f"{name} = {{\n" + "".join(f"    {key!r}: {value!r},\n" for key, value in values.items()) + "}\n"
