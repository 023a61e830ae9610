"""Our preparation, and the tokenizers alone on the same batches of the same slice, with the texts already in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.prepare_text import DOMAIN_FIELD, Text
from doremi.corpus import TokenStore, prepare
from doremi.corpus.config import CorpusConfig
from doremi.corpus.reading.documents import read
from doremi.corpus.reading.inputs import input_files
from doremi.corpus.tokenizing.backends import Backend


def config(text: Text, *, backend: Backend = "auto") -> CorpusConfig:
    """One recipe for all of ours; held-out documents are chosen by hash, as by default."""
    source = {"path": str(text.slice(text.domain_counts[-1])), "domain_field": DOMAIN_FIELD}
    return CorpusConfig.model_validate(
        {"inputs": [source], "tokenizer": {"path": str(text.tokenizer), "backend": backend}}
    )


def _doremi(text: Text, out: Path, backend: Backend) -> Callable[[], float]:
    def work() -> float:
        store = prepare(config(text, backend=backend), out)
        return num_bytes(store)

    return work


def num_bytes(store: TokenStore) -> int:
    """Of the text in a store."""
    return sum(store.num_bytes(name, split=split) for name in store.names for split in ("train", "held_out"))


def doremi_tokenizers(text: Text, out: Path) -> Callable[[], float]:
    """Everything: read, route, encode, write, digest, marker, manifest."""
    return _doremi(text, out, "tokenizers")


def doremi_fastokens(text: Text, out: Path) -> Callable[[], float]:
    """The same with fastokens, its self-check included."""
    return _doremi(text, out, "fastokens")


def _batches(text: Text) -> tuple[list[list[str]], int]:
    """The texts of the slice in the batches that the preparation makes, and their bytes."""
    chunks = [chunk for file in input_files(config(text)) for chunk in read(file)]
    batches = [[str(document.content) for document in chunk.documents] for chunk in chunks]
    return batches, sum(document.num_bytes for chunk in chunks for document in chunk.documents)


def _tokenizers_alone(text: Text, method: str) -> Callable[[], float]:
    from tokenizers import Tokenizer

    batches, total = _batches(text)
    encode = getattr(Tokenizer.from_file(str(text.tokenizer / "tokenizer.json")), method)

    def work() -> float:
        for batch in batches:
            encode(batch, add_special_tokens=False)
        return total

    return work


def encode_batch(text: Text, out: Path) -> Callable[[], float]:
    """`tokenizers`, with offsets, which nobody needs here."""
    return _tokenizers_alone(text, "encode_batch")


def encode_batch_fast(text: Text, out: Path) -> Callable[[], float]:
    """`tokenizers` as fast as it goes."""
    return _tokenizers_alone(text, "encode_batch_fast")


def fastokens_alone(text: Text, out: Path) -> Callable[[], float]:
    """The library fastokens, into flat buffers."""
    import fastokens

    batches, total = _batches(text)
    tokenizer = fastokens.Tokenizer.from_file(str(text.tokenizer / "tokenizer.json"))

    def work() -> float:
        for batch in batches:
            tokenizer.encode_batch_flat(batch, add_special_tokens=False, split_special_tokens=True)
        return total

    return work
