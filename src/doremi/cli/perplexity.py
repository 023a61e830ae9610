"""``doremi perplexity``: any causal LM on the held-out text of a prepared corpus."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from doremi import files
from doremi.report import numbers
from doremi.text import visible

if TYPE_CHECKING:
    from doremi.corpus import TokenStore
    from doremi.weights import DomainWeights


def add_perplexity(verbs: argparse._SubParsersAction) -> None:
    """The verb and its flags."""
    verb = verbs.add_parser(
        "perplexity",
        help="held-out loss of any causal LM on a prepared corpus, domain by domain",
        description="Scores models on the held-out documents of a prepared corpus, in float32: nats per token, bits "
        "per byte and perplexity of each domain, with the uniform mean, the reference-weighted mean and the worst "
        "domain. A model with another tokenizer than the corpus' gets the same text tokenised anew; such models "
        "compare by bits per byte.",
    )
    verb.add_argument("models", metavar="MODEL", nargs="+", help="folder of a Hugging Face causal LM, or hub id")
    verb.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="a prepared corpus, or a run directory")
    verb.add_argument(
        "--weights", metavar="WEIGHTS", default="natural", help="reference weights: a rule or a file (default: natural)"
    )
    verb.add_argument(
        "--sequence-length",
        type=_positive,
        metavar="L",
        help="of the windows (default: that of the main model where DIR is a run directory, else 1024; at most "
        "what the model takes)",
    )
    verb.add_argument(
        "--max-tokens", type=_positive, metavar="N", help="cap per domain, in tokens of the corpus (default: all of it)"
    )
    verb.add_argument("--batch-size", type=_positive, metavar="N", default=16, help="windows per forward pass")
    verb.add_argument("--json", type=Path, metavar="FILE", help="also write every number to FILE")
    verb.set_defaults(action=_perplexity)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _perplexity(options: argparse.Namespace) -> None:
    from transformers.utils import logging as transformers_logging

    from doremi.cli.corpus import corpus_folder
    from doremi.corpus import TokenStore
    from doremi.evaluation import checkpoints
    from doremi.experiment.run_directory import sequence_length

    transformers_logging.disable_progress_bar()
    store = TokenStore.open(corpus_folder(options.corpus))
    weights = _reference_weights(options.weights, store)
    found = []
    for model in options.models:
        losses = checkpoints.evaluate(
            model,
            store,
            sequence_length=options.sequence_length,
            default_length=sequence_length(options.corpus) or checkpoints.DEFAULT_LENGTH,
            max_tokens_per_domain=options.max_tokens,
            batch_size=options.batch_size,
        )
        found.append(losses.to_dict(weights))
        _print(found[-1])
    if options.json is not None:
        files.write_json(options.json, {"corpus_digest": store.digest, "models": found})


def _reference_weights(spec: str, store: TokenStore) -> DomainWeights:
    from doremi.weights import specs

    setting = specs.Setting(store=store, sequence_length=1024, num_tokens=0, max_epochs=4.0, epochs={})
    return specs.resolve(spec, setting, store.names)


def _print(found: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    table.add_column("domain or set" if found["sets"] else "domain", overflow="fold")
    for head in ("tokens", "documents", "nats/token", "bits/byte", "perplexity"):
        table.add_column(head, justify="right")
    for name, domain in (found["domains"] | found["sets"]).items():
        table.add_row(
            Text(visible(name)),
            numbers.whole(domain["num_tokens"]),
            numbers.whole(domain["num_documents"]),
            numbers.nats(domain["nats"]),
            numbers.nats(domain["bits_per_byte"]),
            f"{domain['perplexity']:,.2f}",
        )
    console = Console()
    tokenizer = "its own tokenizer" if found["own_tokenizer"] else "the corpus' tokenizer"
    console.print(Text(f"{visible(found['model'])}: windows of {found['sequence_length']} tokens of {tokenizer}"))
    console.print(table)
    console.print(
        f"uniform mean {found['uniform_mean_nats']:.3f}, reference-weighted mean {found['reference_mean_nats']:.3f}, "
        f"worst {found['worst_nats']:.3f} nats per token ({visible(found['worst_domain'])})",
        markup=False,
        highlight=False,
    )
