"""``doremi weights export``: weights in the format of another training stack."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from doremi import files
from doremi.errors import MissingFileError
from doremi.launch import console
from doremi.weights import DomainWeights, published, specs

if TYPE_CHECKING:
    from doremi.corpus import TokenStore
    from doremi.exporters import Export, Mixture

LoadWeights = Callable[[str], DomainWeights]


def add_export(kinds: argparse._SubParsersAction, load: LoadWeights) -> None:
    """The verb; ``load`` reads a weights file or published weights."""
    from doremi.exporters import FORMATS

    export = kinds.add_parser(
        "export",
        help="write weights in the format of another training stack",
        description=console.wrapped(  # the formatter leaves it as it is, for the table below
            "Writes domain weights as the configuration of another training stack: to the terminal, or with "
            "--out to a file or, with all that belongs to it, to a folder. Weights are shares of training tokens; "
            "where a stack draws documents they are converted. The output says what its numbers count."
        ),
        epilog=_table_of_formats(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument("weights", metavar="FILE", help="weights file, run directory, or published weights by name")
    export.add_argument("--format", dest="format_id", required=True, choices=list(FORMATS), metavar="ID", help="below")
    export.add_argument(
        "--corpus", type=Path, required=True, metavar="DIR", help="run directory, or folder of a prepared corpus"
    )
    export.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="file, or a folder for all that belongs to it: an existing one, or a name without a suffix",
    )
    export.add_argument(
        "--unit",
        choices=["sequences", "documents"],
        help="what one draw is in the data that will be trained on, where the stack leaves it open (the default is the "
        "first one of the table)",
    )
    export.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="of the run to come, if not that of the corpus: folder, tokenizer.json or hub repository. Weights are "
        "converted so that the text stays the same, by tokens counted on held-out text",
    )
    export.add_argument(
        "--tokens",
        type=number_of_tokens,
        metavar="N",
        help="that the run to come trains on, such as 1e11; olmo-core needs it",
    )
    export.set_defaults(action=lambda options: _export(options, load))


def _table_of_formats() -> str:
    from doremi.exporters import FORMATS

    rows = [(name, f.stack, f.goes, " or ".join(f.units)) for name, f in FORMATS.items()]
    lines = [f"  {name:<16} {stack:<23} {goes:<38} {units}" for name, stack, goes, units in rows]
    return "\n".join(["formats: id, stack, where it goes, what the numbers count", *lines])


def number_of_tokens(text: str) -> int:
    """A count that may be written as 1e11."""
    number = float(text)
    if not 1 <= number < 1e18:
        raise argparse.ArgumentTypeError(f"{text} is no number of tokens; give one such as 1e11")
    return int(number)


def _export(options: argparse.Namespace, load: LoadWeights) -> None:
    from doremi.cli.corpus import corpus_folder
    from doremi.corpus import TokenStore
    from doremi.exporters import export
    from doremi.exporters.from_corpus import from_store

    weights = load(options.weights)
    store = TokenStore.open(corpus_folder(options.corpus))
    mixture = from_store(weights, store, source=options.weights, num_tokens=options.tokens)
    mixture = mixture.warn(*_other_origin(options.weights, store))
    if options.tokenizer is not None:
        mixture = _for_tokenizer(options.tokenizer, mixture, store, options.format_id)
    made = export(mixture, options.format_id, unit=options.unit)
    for warning in made.warnings:
        console.show(f"warning: {warning}", file=sys.stderr)
    _write(made, options.out)


def _other_origin(source: str, store: TokenStore) -> list[str]:
    """A warning where the weights were found with another tokenizer than that of the corpus."""
    if source in published.names():
        return [f"published for another tokenizer or corpus: {published.load(source).tokenizer}"]
    content = files.read_json(specs.weights_file(source) or Path(source))
    provenance = content.get("provenance") if isinstance(content, dict) else None
    digest = provenance.get("tokenizer_digest") if isinstance(provenance, dict) else None
    if digest in (None, store.tokenizer_digest):
        return []
    return [
        f"the weights were found under another tokenizer (digest {digest}) than that of the corpus "
        f"({store.tokenizer_digest}); they are taken as shares of the corpus' tokens"
    ]


def _for_tokenizer(name: str, mixture: Mixture, store: TokenStore, format_id: str) -> Mixture:
    from doremi.corpus.tokenizing import tokenizers
    from doremi.exporters import FORMATS, TokenizerFacts, count_again, retokenized

    target = tokenizers.load(name)
    if target.entry.digest == store.tokenizer_digest:
        return mixture
    try:
        ratios = count_again(store, target, [domain.name for domain in mixture.domains])
    except MissingFileError as error:
        return mixture.warn(f"the target's tokenizer is another one, but the weights are as they were: {error}")
    facts = TokenizerFacts(name, target.entry.digest, target.entry.vocab_size)
    converted = retokenized(mixture, ratios, tokenizer=facts)
    if FORMATS[format_id].names_files:
        return converted.warn("the files named here hold ids of the corpus' tokenizer; put those of the other one")
    return converted


def _write(made: Export, out: Path | None) -> None:
    first, *others = made.files
    if out is None:
        sys.stdout.write(made.files[first])
        if others:
            console.show(f"with --out FOLDER also: {', '.join(others)}", file=sys.stderr)
    elif out.is_dir() or not out.suffix:
        for name, text in made.files.items():
            files.write_text(out / name, text)
            console.show(out / name)
    else:
        files.write_text(out, made.files[first])
        console.show(out)
