"""What people use instead, each on the same slice, written as its documentation has it.

A contestant imports its library and returns the work to be timed, which returns the bytes of text it has dealt with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.prepare_text import EOS_TOKEN, Text, read

SEQUENCE_LENGTH = 1024
Columns = dict[str, list[Any]]


def slice_bytes(text: Text) -> int:
    """Bytes of the texts in the slice."""
    return sum(len(str(record["text"]).encode()) for record in read(text.slice(1)))


def tokenize_and_chunk(text: Text) -> Callable[[Columns], Columns]:
    """The function that goes into Dataset.map: join the documents of a batch by EOS, cut windows."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(text.tokenizer / "tokenizer.json"), eos_token=EOS_TOKEN, model_max_length=10**9
    )

    def transform(batch: Columns) -> Columns:
        documents = tokenizer(batch["text"])["input_ids"]
        stream = list(chain.from_iterable([*ids, tokenizer.eos_token_id] for ids in documents))
        return {"input_ids": [stream[at : at + SEQUENCE_LENGTH] for at in range(0, len(stream), SEQUENCE_LENGTH)]}

    return transform


def filter_per_domain(text: Text, out: Path, *, num_domains: int) -> Callable[[], float]:
    """Upstream's way: for each domain read everything, keep what belongs to it, tokenise, save."""
    import datasets

    datasets.disable_progress_bars()
    path, domains, total = str(text.slice(num_domains)), text.domains(num_domains), slice_bytes(text)

    def rows(domain: str) -> Iterator[dict[str, Any]]:
        stream = datasets.load_dataset("json", data_files=path, split="train", streaming=True)
        stream = stream.filter(lambda record: record["meta"]["pile_set_name"] == domain)
        yield from stream.map(tokenize_and_chunk(text), batched=True, remove_columns=["text", "meta"])

    def work() -> float:
        for domain in domains:
            cache = str(out / "cache" / domain)
            kept = datasets.Dataset.from_generator(rows, gen_kwargs={"domain": domain}, cache_dir=cache)
            kept.save_to_disk(out / "saved" / domain)
        return total

    return work


def datasets_map(text: Text, out: Path) -> Callable[[], float]:
    """Dataset.map with all cores, all domains in one dataset."""
    import datasets

    datasets.disable_progress_bars()
    path, total = str(text.slice(text.domain_counts[-1])), slice_bytes(text)

    def work() -> float:
        dataset = datasets.load_dataset("json", data_files=path, split="train", cache_dir=str(out / "cache"))
        transform = tokenize_and_chunk(text)
        dataset.map(transform, batched=True, num_proc=os.cpu_count(), remove_columns=dataset.column_names).save_to_disk(
            out / "saved"
        )
        return total

    return work


def datatrove(text: Text, out: Path) -> Callable[[], float]:
    """DocumentTokenizer of datatrove, which does not route by domain."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from loguru import logger

    logger.remove()
    path, total = text.slice(text.domain_counts[-1]), slice_bytes(text)

    def work() -> float:
        pipeline = [
            JsonlReader(str(path.parent), glob_pattern=path.name),
            DocumentTokenizer(
                str(out / "tokens"),
                tokenizer_name_or_path=str(text.tokenizer / "tokenizer.json"),
                eos_token=EOS_TOKEN,
                shuffle_documents=False,
            ),
        ]
        LocalPipelineExecutor(pipeline, logging_dir=str(out / "logs")).run()
        return total

    return work
