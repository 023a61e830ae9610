"""A corpus folder without tokens that says where they are: ``corpus.store`` of a recipe, which is read in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from doremi import files
from doremi.corpus.config import CorpusConfig
from doremi.corpus.storing import manifest
from doremi.corpus.storing.arrow_store import open_arrow
from doremi.corpus.storing.packing import Packing
from doremi.corpus.storing.store import OPENERS, TOKENIZER_FOLDER, TokenStore
from doremi.corpus.tokenizing import tokenizers
from doremi.errors import InputError


def refer(config: CorpusConfig, folder: Path, *, config_digest: str) -> TokenStore:
    """Make ``folder`` stand for the store that ``config`` names, and open it.

    Raises:
        MissingFileError: no such folder, or nothing in it that can be read in place.
        InputError: no tokenizer is named for a tree of saved datasets, or a domain has no training or held-out tokens.
    """
    assert config.store is not None
    target = Path(config.store).absolute()
    if _is_token_store(target):
        manifest.check(target)
    else:
        _check_tokenizer_is_named(config)
        assert config.tokenizer.path is not None
        loaded = tokenizers.load(config.tokenizer.path, eos_token=config.tokenizer.eos_token)
        loaded.save(folder / TOKENIZER_FOLDER)
    store = _attach(target, folder, config.packing)
    _check_both_sides(store)
    reference = {
        "format": manifest.IN_PLACE,
        "version": manifest.VERSION,
        "store": str(target),
        "digest": store.manifest["digest"],
        "config_digest": config_digest,
        "packing": config.packing,
    }
    files.write_json(folder / manifest.NAME, reference)
    return store


def look(config: CorpusConfig) -> TokenStore:
    """Open the store that ``config`` names without a folder that refers to it; raises what `refer` does."""
    assert config.store is not None
    target = Path(config.store).absolute()
    if _is_token_store(target):
        return TokenStore.open(target, packing=config.packing)
    _check_tokenizer_is_named(config)
    settings = config.tokenizer
    assert settings.path is not None
    return open_arrow(target, tokenizer=settings.path, eos_token=settings.eos_token, packing=config.packing)


def follow(reference: Mapping[str, Any], folder: Path, packing: Packing | None) -> TokenStore:
    """Attach to the store that ``reference``, the manifest of ``folder``, stands for.

    Raises:
        MissingFileError: it is not there any more.
        InputError: it is not the one that the reference was made for.
    """
    target = Path(reference["store"])
    store = _attach(target, folder, packing or reference["packing"])
    if store.manifest["digest"] != reference["digest"]:
        raise InputError(
            f"{target}: changed since {folder} began to refer to it (digest {store.manifest['digest']}, expected "
            f"{reference['digest']}); put back what was there, or start with an empty folder"
        )
    return store


OPENERS[manifest.IN_PLACE] = follow


def _check_tokenizer_is_named(config: CorpusConfig) -> None:
    if config.tokenizer.path is None:
        raise InputError(
            f"corpus.store {config.store}: saved datasets do not say which tokenizer made their ids; set "
            "corpus.tokenizer.path"
        )


def _is_token_store(target: Path) -> bool:
    return (target / manifest.NAME).is_file()


def _attach(target: Path, folder: Path, packing: Packing) -> TokenStore:
    if _is_token_store(target):
        return TokenStore.attach(target, packing=packing)
    return open_arrow(target, tokenizer=folder / TOKENIZER_FOLDER, packing=packing)


def _check_both_sides(store: TokenStore) -> None:
    for name, side in _empty_sides(store):
        raise InputError(
            f"{store.path}: domain {name!r} has no {side} tokens; a tree read in place needs train/NAME and "
            "validation/NAME for each domain. Give it to corpus.inputs, which holds out a fraction by itself"
        )


def _empty_sides(store: TokenStore) -> Iterator[tuple[str, str]]:
    for name in store.names:
        if not store.num_tokens(name):
            yield name, "training"
        if not store.num_tokens(name, split="held_out"):
            yield name, "held-out"
