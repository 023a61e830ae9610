"""`TokenStore`: the prepared corpus as memory-mapped tokens, random access by (domain, row) at any sequence length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from doremi import files
from doremi.corpus.config import Split
from doremi.corpus.storing import manifest
from doremi.corpus.storing.indexed import IndexedShard
from doremi.corpus.storing.manifest import ShardEntry
from doremi.corpus.storing.packing import Packing, RowTable, packed_rows, padded_rows
from doremi.corpus.storing.sharded_tokens import MapLimit, Shard, ShardedTokens
from doremi.errors import InputError

TOKENIZER_FOLDER = "tokenizer"
# By format of the manifest: what opens a folder that is no store itself (manifest, folder, packing).
OPENERS: dict[str, Callable[[Mapping[str, Any], Path, Packing | None], TokenStore]] = {}


class Rows(NamedTuple):
    """Training rows of one domain."""

    tokens: np.ndarray  # stored dtype[n, L]; EOS where a row is short
    lengths: np.ndarray  # int64[n]: how many tokens of each row are real; L everywhere in packing "pack"


class TokenStore:
    """A finished corpus. Use `TokenStore.open`; the object can be sent to other processes, which attach to it.

    Its ``names`` are those of the domains, which have the splits "train" and "held_out"; its ``sets`` those of the
    evaluation sets, whose text has the split "set" alone and belongs to no domain. Holds no file open, and at most
    32,768 memory maps, however many shards there are.
    """

    def __init__(
        self, path: Path, content: dict[str, Any], packing: Packing, shards: Mapping[tuple[str, Split], Sequence[Shard]]
    ) -> None:
        self.path = path
        self.manifest = content
        self.packing = packing
        self.names: tuple[str, ...] = tuple(domain["name"] for domain in content["domains"])
        self.sets: tuple[str, ...] = tuple(part["name"] for part in content.get("sets", []))
        self.dtype: str = content["dtype"]
        self.eos_token_id: int = content["tokenizer"]["eos_token_id"]
        self.vocab_size: int = content["tokenizer"]["vocab_size"]
        self.tokenizer_digest: str = content["tokenizer"]["digest"]
        self._shards = manifest.entries(content)
        limit = MapLimit()
        self._tokens = {key: ShardedTokens(shards[key], dtype=self.dtype, limit=limit) for key in self._shards}
        self._padded_rows = lru_cache(maxsize=None)(self._build_padded_rows)

    @classmethod
    def open(cls, path: str | Path, *, packing: Packing | None = None) -> TokenStore:
        """Open a finished store and check that it is as it was written (`manifest.check`): O(shards), reads no token.

        Args:
            path: the folder that `prepare` wrote, or one that refers to a store elsewhere (``corpus.store``).
            packing: how rows are cut, if not as the store was prepared for.

        Raises:
            MissingFileError: no store there, or one of its files is missing.
            InputError: a manifest of another format or that was changed, or a shard whose size is not the manifest's.
        """
        manifest.check(Path(path))
        return cls.attach(path, packing=packing)

    @classmethod
    def attach(cls, path: str | Path, *, packing: Packing | None = None) -> TokenStore:
        """Open a store that another process of the same job has opened and so checked: reads the manifest alone.

        Asking for the size of every file in every process would be a million questions to the storage of a large job.

        Raises:
            MissingFileError: no store there.
            InputError: a manifest of another format, or of a store elsewhere that is another one now.
        """
        path = Path(path)
        content = manifest.read(path)
        if (opener := OPENERS.get(content["format"])) is not None:
            return opener(content, path, packing)
        shards = {
            key: [IndexedShard(path / entry.file, content["dtype"], entry.tokens) for entry in entries]
            for key, entries in manifest.entries(content).items()
        }
        return cls(path, content, packing or content.get("packing", "pack"), shards)

    def with_packing(self, packing: Packing) -> TokenStore:
        """The same store, its rows cut in another way."""
        other = object.__new__(type(self))  # copy.copy would open it once more
        vars(other).update(vars(self) | {"packing": packing})
        other._padded_rows = lru_cache(maxsize=None)(other._build_padded_rows)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.packing)

    def __repr__(self) -> str:
        return f"TokenStore({str(self.path)!r}, {len(self.names)} domains, {self.packing})"

    @property
    def tokenizer_path(self) -> Path:
        """Folder for ``AutoTokenizer.from_pretrained``."""
        return self.path / TOKENIZER_FOLDER

    @property
    def digest(self) -> str:
        """Identifies rows and held-out documents: content and packing, not where or when they were prepared."""
        digest: str = self.manifest["digest"]
        return digest if self.packing == "pack" else files.digest_json([digest, self.packing])

    def num_tokens(self, name: str, *, split: Split = "train") -> int:
        """Tokens of a domain, one EOS per document included."""
        return len(self._domain_tokens(name, split))

    def num_documents(self, name: str, *, split: Split = "train") -> int:
        """Documents of a domain."""
        return sum(shard.documents for shard in self._domain_shards(name, split))

    def num_bytes(self, name: str, *, split: Split = "train") -> int:
        """Bytes of a domain's text in UTF-8."""
        return sum(shard.bytes for shard in self._domain_shards(name, split))

    def num_sequences(self, name: str, sequence_length: int, *, split: Split = "train") -> int:
        """Rows of ``sequence_length`` tokens; with packing "pack" the tail that fills no row stays in the store."""
        if self.packing == "pack":
            return self.num_tokens(name, split=split) // sequence_length
        self._domain_shards(name, split)
        return len(self._padded_rows(name, sequence_length, split).starts)

    def rows(self, name: str, indices: np.ndarray, sequence_length: int, *, split: Split = "train") -> Rows:
        """Rows of a domain by number, int[n] in any order, gathered from the memory maps.

        Raises:
            IndexError: a row that does not exist.
        """
        indices = np.asarray(indices, np.int64)
        self._check_rows(name, indices, self.num_sequences(name, sequence_length, split=split))
        if self.packing == "pack":
            table = packed_rows(indices, sequence_length)
        else:
            everything = self._padded_rows(name, sequence_length, split)
            table = RowTable(everything.starts[indices], everything.lengths[indices])
        tokens = self._domain_tokens(name, split).windows(table.starts, sequence_length)
        if self.packing == "pad":
            tokens[np.arange(sequence_length) >= table.lengths[:, None]] = self.eos_token_id
        return Rows(tokens, table.lengths)

    def document_lengths(self, name: str, *, split: Split = "train") -> np.ndarray:
        """int64[documents]: tokens of each document of a domain, EOS included. Reads the index, not the tokens."""
        return self._domain_tokens(name, split).document_lengths()

    def documents(self, name: str, *, split: Split = "train") -> Iterator[np.ndarray]:
        """The ids of each document of a domain, stored dtype[n], without its final EOS, in stored order."""
        tokens = self._domain_tokens(name, split)
        lengths = self.document_lengths(name, split=split)
        ends = np.cumsum(lengths)
        for start, end in zip(ends - lengths, ends, strict=True):
            document = tokens.slice(int(start), int(end))
            yield document[:-1] if document[-1] == self.eos_token_id else document

    def _build_padded_rows(self, name: str, sequence_length: int, split: Split) -> RowTable:
        return padded_rows(self._tokens[name, split].document_lengths(), sequence_length)

    def _check_rows(self, name: str, indices: np.ndarray, num_rows: int) -> None:
        # a negative number is a huge one when read as unsigned: one pass instead of two, and calls are what costs time
        if len(indices) and int(indices.view(np.uint64).max()) >= num_rows:
            raise IndexError(f"{name!r} has {num_rows} rows, asked for {indices.min()} to {indices.max()}")

    def _domain_tokens(self, name: str, split: Split) -> ShardedTokens:
        tokens = self._tokens.get((name, split))
        if tokens is None:
            raise self._unknown(name, split)
        return tokens

    def _domain_shards(self, name: str, split: Split) -> list[ShardEntry]:
        if (name, split) not in self._shards:
            raise self._unknown(name, split)
        return self._shards[name, split]

    def _unknown(self, name: str, split: Split) -> InputError:
        known = ", ".join(map(repr, self.names))
        return InputError(f"{self.path}: no domain {name!r} ({split}) in the corpus; it has {known}")


def _reopen(path: Path, packing: Packing) -> TokenStore:
    return TokenStore.attach(path, packing=packing)
