"""``doremi weights show | compare | baseline``: weights files and published weights in the terminal."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from doremi import files
from doremi.cli import tables
from doremi.cli.corpus import SEQUENCE_LENGTH, open_sizes, sequence_length
from doremi.cli.export import add_export
from doremi.errors import InputError
from doremi.launch import console
from doremi.methods import alarms
from doremi.text import visible
from doremi.weights import DomainWeights, listed, published, rules

WEIGHTS = "weights file (plain {name: weight}, or upstream's two-key JSON), run directory, or published weights by name"


def add_weights(verbs: argparse._SubParsersAction) -> None:
    """The verb and its own verbs."""
    group = verbs.add_parser(
        "weights",
        help="look at, compare or compute domain weights",
        description="Look at, compare or compute domain weights.",
    )
    kinds = group.add_subparsers(dest="weights_verb", metavar="VERB", required=True)
    _add_show(kinds)
    _add_compare(kinds)
    _add_baseline(kinds)
    add_export(kinds, _load)


def _add_show(kinds: argparse._SubParsersAction) -> None:
    show = kinds.add_parser(
        "show",
        help="print weights, largest first",
        description="Prints weights, largest first, and what is known of them. Without WEIGHTS, lists those published.",
    )
    show.add_argument("weights", metavar="WEIGHTS", nargs="?", help=WEIGHTS)
    show.set_defaults(action=_show)


def _add_compare(kinds: argparse._SubParsersAction) -> None:
    compare = kinds.add_parser(
        "compare",
        help="how far apart two weights are",
        description="Prints both weights side by side, largest change first, with the total variation (half the sum of "
        "the changes: the share of a batch that would be drawn elsewhere), the largest change, and KL(B ‖ A) in nats.",
    )
    compare.add_argument("first", metavar="A", help=WEIGHTS)
    compare.add_argument("second", metavar="B", help="the same")
    compare.set_defaults(action=_compare)


def _add_baseline(kinds: argparse._SubParsersAction) -> None:
    from doremi.weights.specs import RULES

    known = "; ".join(f"{name}: {what}" for name, what in RULES.items())
    baseline = kinds.add_parser(
        "baseline",
        help="weights by rule for a prepared corpus",
        description=f"Prints the weights that a rule gives for a prepared corpus. Rules: {known}.",
    )
    baseline.add_argument("rule", metavar="NAME", help="such as natural, natural(padded), temperature(2), unimax(4)")
    baseline.add_argument(
        "--corpus",
        dest="folder",
        type=Path,
        required=True,
        metavar="DIR",
        help="a prepared corpus, a run directory, or upstream's preprocessed folder",
    )
    baseline.add_argument(
        "--sequence-length",
        type=_positive_int,
        metavar="L",
        help=f"for natural(packed|padded) (default: that of the main model in a run directory, else {SEQUENCE_LENGTH})",
    )
    baseline.add_argument(
        "--tokens", type=_positive_int, metavar="N", help="that will be trained on, such as 2e9; needed for unimax"
    )
    baseline.add_argument(
        "--epochs",
        metavar="FILE",
        help="for natural: epochs that each domain is meant to be seen for, as JSON {name: epochs}, or pile-epochs",
    )
    baseline.add_argument("--max-epochs", type=float, default=4.0, metavar="E", help="for unimax; default 4")
    baseline.add_argument("--out", type=Path, metavar="FILE", help="also write a weights file")
    baseline.set_defaults(action=_baseline)


def _show(options: argparse.Namespace) -> None:
    if options.weights is None:
        for name in published.names():
            known = published.load(name)
            print(
                console.wrapped(f"{name:<26} {len(known.weights):3d} domains  {known.source}", indent="    ", first="")
            )
        return
    if options.weights in published.names():
        known = published.load(options.weights)
        console.show(tables.weights_table(known.weights))
        for label, fact in (("tokenizer", known.tokenizer), ("counts", known.counts), ("source", known.source)):
            console.show(console.wrapped(f"{label}: {fact}", indent="  ", first=""))
        return
    show_weights(_file(options.weights))


def show_weights(path: Path) -> None:
    """Print a weights file: each weight with its spread, and what the file says of its origin, alarms included."""
    from doremi.weights import provenance

    weights, origin = DomainWeights.from_json(path), provenance.read(path)
    console.show(tables.weights_table(weights, spread=origin.spread))
    for line in provenance.describe(origin):
        console.show(console.wrapped(line, indent="  ", first=""))


def _compare(options: argparse.Namespace) -> None:
    first, second = _load(options.first), _load(options.second)
    if not first.keys() & second.keys():
        raise InputError(
            f"{options.first} and {options.second} have no domain in common, so there is nothing to compare: "
            f"{listed(first)} against {listed(second)}"
        )
    console.show(comparison_table(first, second))


def _baseline(options: argparse.Namespace) -> None:
    from doremi.weights import specs

    if not 0 < options.max_epochs < math.inf:
        raise InputError(f"--max-epochs {options.max_epochs:g}: it must be above 0, and finite")
    if options.rule.startswith("unimax") and options.tokens is None:
        raise InputError("unimax depends on how much will be trained on: give --tokens, such as --tokens 2e9")
    store = open_sizes(options.folder)
    setting = specs.Setting(
        store=store,
        sequence_length=sequence_length(options),
        num_tokens=options.tokens or 0,
        max_epochs=options.max_epochs,
        epochs=_epochs(options.epochs, store.names) if options.epochs else {},
    )
    found = specs.resolve(options.rule, setting, store.names)
    console.show(tables.weights_table(found))
    if options.out is not None:
        facts = {"rule": options.rule, "corpus_digest": store.digest, "tokenizer_digest": store.tokenizer_digest}
        found.to_json(options.out, provenance=facts)


def _positive_int(text: str) -> int:
    """``2e9`` is a number of tokens too."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not (value >= 1 and value.is_integer()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(value)


def _epochs(text: str, names: Sequence[str]) -> dict[str, float]:
    """Of a file; of the Pile's, those of the domains that the corpus has."""
    if text == published.EPOCHS:
        found = {name: value for name, value in published.pile_epochs().items() if name in names}
        if not found:
            raise InputError(
                f"--epochs {text}: none of the corpus' domains is one of the Pile's; it has {listed(names)}"
            )
        return found
    return rules.check_epochs(files.read_json(Path(text)), names, source=text)


def comparison_table(first: DomainWeights, second: DomainWeights) -> str:
    """Both weights of every domain, the change and a bar for it, largest change first; then the three distances."""
    changes = {name: second.get(name, 0.0) - first.get(name, 0.0) for name in {**first, **second}}
    width = max(6, *(len(visible(name)) for name in changes))
    largest = max(map(abs, changes.values())) or 1.0
    bar_width = console.bar_width(beside=width + 32)
    lines = [f"{'domain':<{width}}  {'A':>8}  {'B':>8}  {'B - A':>8}"]
    for name, change in sorted(changes.items(), key=lambda item: -abs(item[1])):
        bar = ("+" if change > 0 else "-") * round(bar_width * abs(change) / largest)
        a, b = first.get(name, 0.0), second.get(name, 0.0)
        lines.append(f"{visible(name):<{width}}  {a:8.4f}  {b:8.4f}  {change:+8.4f}  {bar}".rstrip())
    variation, divergence = alarms.total_variation(first, second), kl_divergence(second, first)
    name = max(changes, key=lambda name: abs(changes[name]))
    lines.append(
        f"total variation {variation:.4f}, largest change {abs(changes[name]):.4f}, KL(B ‖ A) {divergence:.4f} nats"
    )
    return "\n".join(lines)


def kl_divergence(weights: Mapping[str, float], base: Mapping[str, float]) -> float:
    """Σ_i w_i log(w_i / base_i) in nats; infinite where ``base`` lacks a domain that has weight."""
    return math.fsum(
        weight * math.log(weight / base[name]) if base.get(name, 0.0) > 0 else math.inf
        for name, weight in weights.items()
        if weight > 0
    )


def _load(text: str) -> DomainWeights:
    if text in published.names():
        return published.load(text).weights
    return DomainWeights.from_json(_file(text))


def _file(text: str) -> Path:
    """The file that holds the weights."""
    from doremi.weights import specs

    found = specs.weights_file(text)
    if found is None and Path(text).suffix != ".json":
        raise InputError(f"{text!r} is neither a file nor published weights; there are {', '.join(published.names())}")
    return found or Path(text)
