"""The tokenizer of a corpus: loaded or trained, made safe to encode untrusted text with, and saved with the tokens."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from doremi import files
from doremi.corpus.tokenizing.backends import Backend, Ids, ReferenceEncoder, TextEncoder, open_encoder
from doremi.corpus.tokenizing.long_texts import MAX_WORD_CHARACTERS, PIECE_CHARACTERS, Divider, encode_in_pieces
from doremi.errors import InputError, MissingFileError, shown

END_OF_TEXT = "<|endoftext|>"
_KNOWN_EOS_TOKENS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>")
_CONFIG = "tokenizer_config.json"
_COMPANIONS = (_CONFIG, "special_tokens_map.json", "chat_template.jinja")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class TokenizerEntry:
    """The tokenizer that the ids of a store belong to, as its manifest names it."""

    digest: str
    eos_token: str
    eos_token_id: int
    vocab_size: int


class CorpusTokenizer:
    """A Hugging Face fast tokenizer with its EOS token.

    Special tokens that documents spell out are encoded as the text that they are, nothing is added, truncated or
    padded.

    Raises:
        InputError: ``eos_token`` is not in the vocabulary, or text that spells it out would still be encoded as EOS.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        eos_token: str,
        folder: Path | None = None,
        encode_with: Backend = "tokenizers",
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend = backend
        self._folder = folder
        self._encode_with = encode_with
        self._divider = Divider(backend)
        eos_token_id = backend.token_to_id(eos_token)
        if eos_token_id is None:
            raise InputError(f"tokenizer: {shown(eos_token)} is not in its vocabulary; set corpus.tokenizer.eos_token")
        self.entry = TokenizerEntry(
            digest=_digest(backend, eos_token),
            eos_token=eos_token,
            eos_token_id=eos_token_id,
            vocab_size=max(backend.get_vocab().values()) + 1,
        )
        if eos_token_id in ReferenceEncoder(backend)([f"a {eos_token} b"]).flat:
            raise InputError(
                f"tokenizer: a document that spells out {eos_token!r} would be cut in two, because the token is not "
                'marked "special" in tokenizer.json; mark it, or name another corpus.tokenizer.eos_token'
            )

    @cached_property
    def encoder(self) -> TextEncoder:
        """What encodes, by the choice of ``encode_with``; opened when it is first needed, a third of a second."""
        return open_encoder(self._backend, self._encode_with)

    def encode(self, texts: Sequence[str]) -> Ids:
        """Token ids of each text, without EOS, computed in parallel; of long ones in pieces that change no id.

        Raises:
            IndivisibleTextError: a text is too long to be encoded as a whole, and cannot be cut.
        """
        if all(len(text) <= 2 * PIECE_CHARACTERS for text in texts):
            return self.encoder(texts)
        return encode_in_pieces(texts, self._divider, self.encoder)

    def check_length(self, text: str) -> None:
        """Refuse a text that `encode` could not encode.

        Raises:
            IndivisibleTextError: see `encode`.
        """
        if len(text) > MAX_WORD_CHARACTERS:
            for _ in self._divider.pieces(text):
                pass

    def count_bytes(self, ids: np.ndarray) -> int:
        """Bytes of UTF-8 that token ids int[n] stand for, EOS tokens not counted."""
        return len(self.decode(ids[ids != self.entry.eos_token_id]).encode())

    def decode(self, ids: np.ndarray) -> str:
        """The text of token ids int[n]; a character that is cut in two becomes U+FFFD."""
        return self._backend.decode(ids.tolist(), skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        """Write a folder that ``AutoTokenizer.from_pretrained`` opens."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        if self._folder is not None:
            for name in _COMPANIONS:
                if (self._folder / name).is_file():
                    shutil.copyfile(self._folder / name, folder / name)
            if (folder / _CONFIG).is_file():
                config = files.read_json(folder / _CONFIG)
        files.write_json(folder / _CONFIG, {**config, "eos_token": self.entry.eos_token})
        files.write_text(folder / "tokenizer.json", self._backend.to_str())  # last: its presence says that all is there


def _digest(backend: tokenizers.Tokenizer, eos_token: str) -> str:
    """Of what decides the ids of a text: transformers rewrites the other parts whenever it opens a tokenizer."""
    content = json.loads(backend.to_str())
    parts = {part: content[part] for part in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
    return files.digest_json([parts, eos_token])


MIN_VOCAB_SIZE = 257  # of a trained one: the bytes, and the token that ends a document


def train(texts: Sequence[str], *, vocab_size: int, encode_with: Backend = "tokenizers") -> CorpusTokenizer:
    """A byte-level BPE of at most ``vocab_size`` tokens, `END_OF_TEXT` among them; the same for the same texts."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return CorpusTokenizer(backend, eos_token=END_OF_TEXT, encode_with=encode_with)


def load(path: str, *, eos_token: str | None = None, encode_with: Backend = "tokenizers") -> CorpusTokenizer:
    """The tokenizer in a folder, a ``tokenizer.json`` or a hub repository.

    Raises:
        MissingFileError: no such file, folder or repository.
        InputError: it has no ``tokenizer.json``, or not one that can be read, or no EOS token is known.
    """
    found = Path(path)
    if not found.exists():
        found = _download(path)
    file = found / "tokenizer.json" if found.is_dir() else found
    if not file.is_file():
        raise InputError(
            f"{file}: no such file; only fast tokenizers can be used. AutoTokenizer.from_pretrained(...)"
            ".save_pretrained(FOLDER) writes it where transformers can convert the tokenizer"
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust library raises nothing more specific
        raise InputError(f"{file}: not a tokenizer that the tokenizers library reads: {error}") from error
    named = _named_eos_token(file.parent) if eos_token is None else eos_token
    eos_token = _known_eos_token(backend, file) if named is None else named
    return CorpusTokenizer(backend, eos_token=eos_token, folder=file.parent, encode_with=encode_with)


def wrap(tokenizer: Any, *, encode_with: Backend = "auto") -> CorpusTokenizer:
    """A tokenizer of transformers or tokenizers, or what `load` takes, as ours. The object given is not changed."""
    if isinstance(tokenizer, str | Path):
        return load(str(tokenizer), encode_with=encode_with)
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise InputError(f"{type(tokenizer).__name__} is not a fast tokenizer; give one with a tokenizer.json")
    copy = tokenizers.Tokenizer.from_str(backend.to_str())
    eos_token = getattr(tokenizer, "eos_token", None) or _known_eos_token(copy, "the tokenizer given")
    return CorpusTokenizer(copy, eos_token=eos_token, encode_with=encode_with)


def _download(name: str) -> Path:
    if not _HUB_ID.fullmatch(name):
        raise MissingFileError(f"{name}: no such tokenizer folder or file; check corpus.tokenizer.path")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["tokenizer.json", *_COMPANIONS]))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise MissingFileError(
            f"{name}: no such folder or file, and it could not be had from the Hugging Face hub: {error}"
        ) from error


def _named_eos_token(folder: Path) -> str | None:
    for name in _COMPANIONS[:2]:
        if (folder / name).is_file():
            config = files.read_json(folder / name)
            if not isinstance(config, dict):
                raise InputError(
                    f"{folder / name}: expected a JSON object; save the tokenizer again, or delete the file"
                )
            token = config.get("eos_token")
            if token is not None:
                content = token.get("content") if isinstance(token, dict) else token
                if not isinstance(content, str):
                    raise InputError(f"{folder / name}: eos_token is {shown(token)}; expected the text of the token")
                return content
    return None


def _known_eos_token(backend: tokenizers.Tokenizer, source: object) -> str:
    for token in _KNOWN_EOS_TOKENS:
        if backend.token_to_id(token) is not None:
            return token
    raise InputError(
        f"{source}: no EOS token is known (no tokenizer_config.json beside it names one, and none of "
        f"{' '.join(_KNOWN_EOS_TOKENS)} is in the vocabulary); set corpus.tokenizer.eos_token"
    )
