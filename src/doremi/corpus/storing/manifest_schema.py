"""The form of ``manifest.json``: what a store's manifest has to say before any of it is used.

10,000 shards take 70 ms.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from doremi.corpus.storing.packing import Packing
from doremi.files import checked_json

Count = Annotated[int, Field(ge=0, lt=1 << 62)]


class _Settings(checked_json.Part):
    config_digest: str | None = None
    packing: Packing = "pack"


class InPlace(_Settings):
    """A folder that refers to a store elsewhere: the one that `corpus.store` of the recipe named."""

    store: str = Field(min_length=1)
    digest: str


class _Skipped(checked_json.Part):
    name: str
    skipped: dict[str, Count]


def _check_place(file: str) -> str:
    """A path below the store, whatever the manifest says; links in the store's folder are followed wherever they lead.

    Raises:
        ValueError: it is absolute, or leads out of the store.
    """
    if not file or "\0" in file or "\\" in file or file.startswith("/") or ".." in file.split("/"):
        raise ValueError("a shard has to lie below the store: a relative path without `..`")
    return file


class Shard(checked_json.Part, extra="forbid"):
    """One pair of files, see `doremi.corpus.storing.manifest.ShardEntry`."""

    file: Annotated[str, AfterValidator(_check_place)]
    documents: Count
    tokens: Count
    bytes: Count
    bin_digest: str
    idx_digest: str


class _Domain(checked_json.Part):
    name: str = Field(min_length=1)
    train: list[Shard]
    held_out: list[Shard]


class _Set(checked_json.Part):
    name: str = Field(min_length=1)
    set: list[Shard]


class _Tokenizer(checked_json.Part):
    digest: str
    eos_token: str
    eos_token_id: Count
    vocab_size: Annotated[Count, Field(gt=0)]


class Manifest(_Settings):
    """A token store."""

    dtype: Literal["uint16", "int32"]
    tokenizer: _Tokenizer
    domains: list[_Domain] = Field(min_length=1)
    sets: list[_Set] = Field(default_factory=list)
    digest: str
    encoded_by: list[str] = Field(default_factory=list)
    inputs: list[_Skipped]

    @model_validator(mode="after")
    def _check_names(self) -> Manifest:
        counts = Counter([*(domain.name for domain in self.domains), *(part.name for part in self.sets)])
        if repeated := [name for name, times in counts.items() if times > 1]:
            raise ValueError(f"two domains{' or sets' if self.sets else ''} are called {repeated[0]!a}")
        return self
