"""What turns texts into ids: `tokenizers`, the reference, or fastokens, which must first have given the same ids."""

from __future__ import annotations

import importlib
import logging
import random
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import tokenizers

from doremi.errors import InputError

logger = logging.getLogger(__name__)

Backend = Literal["auto", "tokenizers", "fastokens"]

CHECKED_BYTES = 250_000  # of the first documents that a process encodes are encoded with both: an eighth of a second
_FUZZ_ALPHABETS = ((32, 127), (0, 0x250), (0x300, 0x3000), (0x3040, 0xD7FF), (0x1F300, 0x1FAFF))
_FUZZ_PIECES = ("\r\n", "\n\n", "  ", "\t", "\x00", "'s", "'LL", "123456", "e\u0301", "\u200d", "\ufeff", "\u00a0")


class Ids(NamedTuple):
    """Token ids of several texts, end to end: an array a text would cost more than the fast encoder itself."""

    flat: np.ndarray  # int[n]
    lengths: np.ndarray  # int64[texts], sum n

    def split(self) -> list[np.ndarray]:
        """int[n_i] of each text, views of ``flat``."""
        return np.split(self.flat, np.cumsum(self.lengths)[:-1]) if len(self.lengths) else []


class TextEncoder(Protocol):
    """Texts to ids, without EOS."""

    @property
    def name(self) -> str:
        """Library and version."""

    def __call__(self, texts: Sequence[str]) -> Ids:
        """The ids of each text."""


class ReferenceEncoder:
    """`tokenizers`, in Rust threads, unless TOKENIZERS_PARALLELISM says no."""

    name = f"tokenizers {tokenizers.__version__}"

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend

    def __call__(self, texts: Sequence[str]) -> Ids:
        """The ids of each text."""
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        # One list of Python integers at a time: those of a whole batch would take 50 MB.
        ids = [np.fromiter(encoding.ids, np.uint32, len(encoding)) for encoding in encodings]
        return Ids(np.concatenate([np.empty(0, np.uint32), *ids]), np.fromiter(map(len, ids), np.int64, len(ids)))


def open_encoder(backend: tokenizers.Tokenizer, choice: Backend) -> TextEncoder:
    """The encoder of ``choice``: for "auto" fastokens where it is installed and gives the same ids, else the reference.

    Raises:
        InputError: "fastokens" was asked for, but is not installed, cannot read this tokenizer or gives other ids.
    """
    reference = ReferenceEncoder(backend)
    if choice == "tokenizers":
        return reference
    try:
        fast = _FastEncoder(backend)
        special = [token.content for token in backend.get_added_tokens_decoder().values()]
        _compare(fast, reference, list(_fuzz_texts(special)))
    except _UnusableError as error:
        if choice == "fastokens":
            raise InputError(f"corpus.tokenizer.backend: fastokens {error}; use auto or tokenizers") from error
        if error.is_installed:
            logger.warning("fastokens %s: encoding with tokenizers instead", error)
        return reference
    return _CheckedEncoder(fast, reference, is_forced=choice == "fastokens")


class _UnusableError(Exception):
    def __init__(self, reason: str, *, is_installed: bool = True) -> None:
        super().__init__(reason)
        self.is_installed = is_installed


class _FastEncoder:
    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        try:
            fastokens = importlib.import_module("fastokens")
        except ImportError as error:
            raise _UnusableError(f"cannot be imported ({error})", is_installed=error.name != "fastokens") from error
        try:
            self._backend: Any = fastokens.Tokenizer.from_json_str(backend.to_str())
        except ValueError as error:
            raise _UnusableError(f"cannot read this tokenizer ({error})") from error

    @property
    def name(self) -> str:
        return f"fastokens {metadata.version('fastokens')}"

    def __call__(self, texts: Sequence[str]) -> Ids:
        try:
            data, bounds = self._backend.encode_batch_flat(
                list(texts), add_special_tokens=False, split_special_tokens=True
            )
        except Exception as error:  # such as a byte without a token, which tokenizers leaves out
            raise _UnusableError(f"cannot encode this text ({error})") from error
        return Ids(np.frombuffer(data, "<u4"), np.diff(np.frombuffer(bounds, "<u8").astype(np.int64)))


class _CheckedEncoder:
    """fastokens, whose first documents are compared with the reference before anything is made of them.

    Where it cannot encode a later one, the reference takes over from there: until then the ids were the same.
    """

    def __init__(self, fast: _FastEncoder, reference: ReferenceEncoder, *, is_forced: bool) -> None:
        self._encoder: TextEncoder = fast
        self._reference, self._is_forced = reference, is_forced
        self._bytes_left = CHECKED_BYTES

    @property
    def name(self) -> str:
        return self._encoder.name

    def __call__(self, texts: Sequence[str]) -> Ids:
        try:
            if self._bytes_left > 0:
                self._check(texts)
            return self._encoder(texts)
        except _UnusableError as error:
            if self._is_forced:
                raise InputError(f"corpus.tokenizer.backend: fastokens {error}; use auto or tokenizers") from error
            logger.warning("fastokens %s: encoding with tokenizers instead", error)
            self._encoder, self._bytes_left = self._reference, 0
            return self._reference(texts)

    def _check(self, texts: Sequence[str]) -> None:
        sizes = np.cumsum([len(text.encode()) for text in texts])
        checked = texts[: int(np.searchsorted(sizes, self._bytes_left)) + 1]
        self._bytes_left -= int(sizes[-1]) if len(sizes) else 0
        _compare(self._encoder, self._reference, checked)


def _compare(fast: TextEncoder, reference: TextEncoder, texts: Sequence[str]) -> None:
    for text, ours, theirs in zip(texts, fast(texts).split(), reference(texts).split(), strict=True):
        if not np.array_equal(ours, theirs):
            raise _UnusableError(f"gives other token ids for {text[:60]!r}")


def _fuzz_texts(special_tokens: Sequence[str]) -> Iterator[str]:
    """Short strings over many scripts, spacings and spelled-out special tokens; the same ones every time."""
    source = random.Random(0)
    pieces = [*_FUZZ_PIECES, *special_tokens]
    for _ in range(500):
        characters = [chr(source.randrange(*source.choice(_FUZZ_ALPHABETS))) for _ in range(source.randrange(1, 40))]
        characters[source.randrange(len(characters))] += source.choice(pieces)
        yield "".join(characters)
