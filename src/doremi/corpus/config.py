"""Where the text comes from and how it becomes tokens: the recipe's ``corpus``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from doremi import files
from doremi.config import (
    MAX_PROCESSES,
    Count,
    Number,
    Section,
)
from doremi.errors import InputError

Split = Literal["train", "held_out", "set"]  # the last: of an evaluation set, which belongs to no domain
SPLITS: tuple[Split, ...] = ("train", "held_out")  # of a domain


class HubDatasetConfig(Section):
    """A dataset of the Hugging Face hub, streamed. None of its code is run."""

    name: str = Field(description="hub id owner/name, or a local folder that datasets.load_dataset reads")
    config: str | None = Field(None, description="configuration (subset) of the dataset, if it has several")
    split: str = Field("train", description="split of the dataset; its documents may still be held out by content hash")
    revision: str | None = Field(None, description="branch, tag or commit; absent: the newest")


def _dataset_shorthand(value: object) -> object:
    """``dataset: owner/name`` is short for ``dataset: {name: owner/name}``."""
    return {"name": value} if isinstance(value, str) else value


class SourceConfig(Section):
    """Where documents come from: ``path``, ``dataset`` or ``reader``, and which fields hold them."""

    path: str | None = Field(
        None,
        description="file, folder or glob pattern, local or a URL such as s3://, gs:// and hf://: .jsonl or .json "
        "lines, .txt (one document a file; both plain, .gz or .zst), .parquet, or local folders that "
        "datasets.load_from_disk opens (text, or token ids in upstream's layouts); without domain and domain_field, "
        "the folder directly below names the domain",
    )
    dataset: Annotated[HubDatasetConfig | None, BeforeValidator(_dataset_shorthand)] = Field(
        None, description="dataset of the Hugging Face hub: owner/name, or a mapping with config, split, revision"
    )
    reader: str | None = Field(
        None,
        description="package.module:function that yields (domain, text) or (domain, token ids); Python code of yours "
        "that runs with your rights",
    )
    text_field: str = Field("text", description="where a record holds its text; dotted path")
    ids_field: str = Field("input_ids", description="column of token ids in an already tokenised dataset")
    ids_rows: Literal["chunks", "documents"] = Field(
        "chunks",
        description="what a row of token ids is: a chunk of a stream that holds its own EOS tokens, stored as it is, "
        "or a document, to which EOS is appended where it is missing",
    )

    @property
    def source(self) -> str:
        """What the documents come from, in a word."""
        return self.path or (self.dataset.name if self.dataset else self.reader) or ""

    @model_validator(mode="after")
    def _one_source(self) -> SourceConfig:
        if [self.path, self.dataset, self.reader].count(None) != 2:
            raise ValueError("give exactly one of `path`, `dataset` and `reader`")
        return self


class InputConfig(SourceConfig):
    """One source of documents, with a fixed ``domain`` or a ``domain_field``."""

    domain: str | None = Field(None, description="name of the one domain that every document of this input belongs to")
    domain_field: str | None = Field(
        None, description="where a record names its domain; dotted path such as meta.pile_set_name"
    )

    @model_validator(mode="after")
    def _one_domain(self) -> InputConfig:
        if self.domain is not None and self.domain_field is not None:
            raise ValueError("give `domain` or `domain_field`, not both")
        if self.reader is not None and (self.domain is not None or self.domain_field is not None):
            raise ValueError("a `reader` yields the domain with each document: drop `domain` and `domain_field`")
        if self.dataset is not None and self.domain is None and self.domain_field is None:
            raise ValueError("a `dataset` needs `domain` (one name) or `domain_field` (the column that names it)")
        return self


class SetConfig(SourceConfig):
    """Text to evaluate on that is never trained on. Entries of one name are one set, as inputs of one domain are."""

    name: str = Field(description="how results and targets call the set; no domain may have this name")

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        files.encode_name(name)
        return name

    def as_input(self) -> InputConfig:
        """The same source as an input whose one domain is the set; a reader's own names are passed over."""
        content = self.model_dump(exclude={"name"})
        return InputConfig.model_validate(content | ({} if self.reader is not None else {"domain": self.name}))


class TokenizerConfig(Section):
    """A tokenizer to load, or the size of one to train."""

    path: str | None = Field(
        None, description="Hugging Face tokenizer: folder, tokenizer.json or hub id; absent: one is trained"
    )
    vocab_size: Count = Field(
        2048, ge=257, le=2**31 - 1, description="vocabulary of the byte-level BPE that is trained on the corpus"
    )
    train_megabytes: Number = Field(
        50.0,
        gt=0,
        description="text that the BPE is trained on, at most, in MB; taken in proportion to the domains",
    )
    eos_token: str | None = Field(
        None, description="token that ends a document, where the files of the loaded tokenizer do not name one"
    )
    backend: Literal["auto", "tokenizers", "fastokens"] = Field(
        "auto",
        description="library that encodes: auto takes fastokens (extra `fast`) where it gives the same ids as "
        "tokenizers on a fuzz set and on the first documents. The result does not depend on it",
    )


class CorpusConfig(Section):
    """Where the text comes from and how it becomes tokens."""

    inputs: list[InputConfig] = Field([], description="sources of documents, mixed freely")
    store: str | None = Field(
        None,
        description="tokens to read where they lie, instead of inputs: a folder that `doremi prepare` wrote, or "
        "upstream's preprocessed one, train/DOMAIN[/shard] and validation/DOMAIN[/shard] of datasets.save_to_disk with "
        "input_ids, which needs tokenizer.path",
    )
    held_out_inputs: list[InputConfig] = Field(
        [], description="sources of held-out documents; absent: a fraction of the inputs, chosen by content hash"
    )
    held_out_fraction: Number = Field(
        0.05, ge=0, lt=1, description="share of each domain's documents held out for evaluation, by content hash"
    )
    tokenizer: TokenizerConfig = Field(TokenizerConfig(), description="tokenizer to load or to train")
    num_workers: Count = Field(
        1,
        ge=1,
        le=MAX_PROCESSES,
        description="processes that tokenise input files side by side; one already uses all cores for the tokenizer. "
        "The result does not depend on it",
    )
    packing: Literal["pack", "pad"] = Field(
        "pack",
        description="pack: rows are windows of all documents joined by EOS; pad: each document begins a row of its "
        "own. Rows are worked out when they are read, so a change does not prepare the corpus again",
    )
    on_bad_record: Literal["error", "skip"] = Field(
        "error",
        description="a record that cannot be used (malformed JSON, missing field, no text, invalid UTF-8, impossible "
        "domain name) stops the preparation, or is left out and counted",
    )

    @model_validator(mode="after")
    def _something_held_out(self) -> CorpusConfig:
        if bool(self.inputs) == (self.store is not None):
            raise ValueError("give `inputs`, or a `store` to read in place, and not both")
        if self.store is not None and self.held_out_inputs:
            raise ValueError("a `store` has its own held-out documents: drop `held_out_inputs`")
        if not self.held_out_inputs and self.held_out_fraction == 0:
            raise ValueError("nothing is held out: set held_out_fraction above 0 or give held_out_inputs")
        return self


def check_sets(config: CorpusConfig, sets: Sequence[SetConfig]) -> None:
    """Refuse sets of a recipe's own beside a store that is read in place: what that holds is given.

    Raises:
        InputError: there are some.
    """
    if sets and config.store is not None:
        raise InputError(
            f"evaluation.sets: {sets[0].name!r} cannot go with corpus.store: nothing can be left out of a store that "
            "is read in place, so a document of the set might be trained on. Give corpus.inputs, or a store that was "
            "prepared with these sets, which are then evaluated wherever the store is used"
        )
