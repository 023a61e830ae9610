"""``doremi corpus show | verify | export``: what is done with a prepared corpus."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from doremi.cli.prepare import positive
from doremi.errors import InputError
from doremi.launch import console

if TYPE_CHECKING:
    from doremi.corpus import TokenStore

SEQUENCE_LENGTH = 1024  # upstream's and the paper's


def add_corpus(verbs: argparse._SubParsersAction) -> None:
    """The verb and its own verbs."""
    group = verbs.add_parser(
        "corpus",
        help="look at, check or export a prepared corpus",
        description="Look at, check or export a prepared corpus: the folder `corpus/` of a run directory, or what "
        "doremi.corpus.prepare and from_datasets wrote.",
    )
    kinds = group.add_subparsers(dest="corpus_verb", metavar="VERB", required=True)
    _add_show(kinds)
    _add_verify(kinds)
    _add_export(kinds)


def _add_show(kinds: argparse._SubParsersAction) -> None:
    show = kinds.add_parser(
        "show",
        help="documents, tokens, bytes and natural weights of each domain",
        description="Prints for each domain its documents, tokens, MB, bytes per token, sequences and held-out size, "
        "and its natural weights: `share` counts tokens (what `weights.reference: natural` uses), `packed` and "
        "`padded` count chunks in upstream's two ways, which published weights differ by. Reads the manifest and the "
        "indices, none of the tokens.",
    )
    _add_folder(show)
    _add_sequence_length(show)
    show.add_argument("--json", action="store_true", help="print JSON instead of a table")
    show.set_defaults(action=_show)


def _add_verify(kinds: argparse._SubParsersAction) -> None:
    verify = kinds.add_parser(
        "verify",
        help="reread every byte and compare it with the manifest",
        description="Rereads the whole corpus at the speed of the disk and compares it with its manifest: finds a "
        "flipped bit, a truncated shard, a missing file, another tokenizer. Training checks sizes and the manifest "
        "alone. Saved datasets that are read in place have no digests of their bytes: what was checked instead is "
        "printed. Exit code 0 where no fault was found, 1 otherwise; each faulty file is named.",
    )
    _add_folder(verify)
    verify.set_defaults(action=_verify)


def _add_export(kinds: argparse._SubParsersAction) -> None:
    export = kinds.add_parser(
        "export",
        help="write Hugging Face datasets, one per split and domain",
        description="Writes OUT/train/DOMAIN and OUT/validation/DOMAIN, upstream's layout, each for "
        "datasets.load_from_disk: one column, input_ids. A domain whose name is no plain folder name gets a "
        "percent-encoded one.",
    )
    _add_folder(export)
    export.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="must not exist yet, or be empty")
    export.add_argument("--format", choices=["hf"], default="hf", help="hf: Arrow folders of save_to_disk (default)")
    export.add_argument(
        "--rows",
        choices=["chunks", "documents"],
        default="chunks",
        help="chunks: the rows that training draws (default); documents: whole ones, without their EOS",
    )
    _add_sequence_length(export)
    export.set_defaults(action=_export)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", type=Path, help="a prepared corpus, or a run directory")


def _add_sequence_length(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sequence-length",
        type=positive,
        metavar="L",
        help=f"tokens in a row (default: that of the main model in a run directory, else {SEQUENCE_LENGTH})",
    )


def corpus_folder(folder: Path) -> Path:
    """The corpus of a run directory, or the folder itself."""
    from doremi.experiment.run_directory import RunDirectory

    within = RunDirectory(folder).corpus
    return within if within.is_dir() and not (folder / "manifest.json").exists() else folder


def sequence_length(options: argparse.Namespace) -> int:
    """What ``--sequence-length`` says, or the run directory, or 1024."""
    from doremi.experiment import run_directory

    found = options.sequence_length or run_directory.sequence_length(options.folder)
    return SEQUENCE_LENGTH if found is None else found


def open_sizes(folder: Path) -> TokenStore:
    """What is prepared in ``folder``, or saved datasets with token ids of an unknown tokenizer, to be counted."""
    from doremi.corpus import TokenStore, open_arrow
    from doremi.corpus.storing.arrow_store import is_tree

    prepared = corpus_folder(folder)
    if not (prepared / "manifest.json").exists() and is_tree(prepared):
        return open_arrow(prepared, tokenizer=None)
    return TokenStore.open(prepared)


def _show(options: argparse.Namespace) -> None:
    from doremi.corpus.storing import inspection

    store = open_sizes(options.folder)
    length = sequence_length(options)
    if options.json:
        print(json.dumps(inspection.to_json(store, sequence_length=length), indent=1))
    else:
        console.show(inspection.show(store, sequence_length=length, width=console.width()))


def _verify(options: argparse.Namespace) -> int:
    from doremi.corpus import verify
    from doremi.corpus.storing.arrow_store import is_tree

    folder = corpus_folder(options.folder)
    if not (folder / "manifest.json").exists() and is_tree(folder):
        raise InputError(
            f"{folder}: saved datasets, which keep no digests. Name a run directory whose corpus.store they are, for "
            "the checks that there are instead"
        )
    found = verify(folder)
    for fault in found.faults:
        console.show(fault)
    if not found.faults:
        console.show(f"{folder}: {found.assurance}")
        return 0
    console.show(
        f"{folder}: {len(found.faults)} faulty; restore what is named from a copy, or delete the folder and prepare "
        "the corpus again"
    )
    return 1


def _export(options: argparse.Namespace) -> None:
    from doremi.corpus import TokenStore, to_datasets

    store = TokenStore.open(corpus_folder(options.folder))
    out = to_datasets(store, options.out, rows=options.rows, sequence_length=sequence_length(options))
    console.show(f"{out}: train and validation of {len(store.names)} domains; open one with datasets.load_from_disk")
    console.show(f"tokenizer  {store.tokenizer_path}")
