"""A store as Hugging Face datasets in upstream's layout: a folder a split and domain."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from doremi import files
from doremi.corpus.config import Split
from doremi.corpus.storing.lock import full_disk_reported
from doremi.corpus.storing.store import TokenStore
from doremi.errors import InputError
from doremi.launch import progress

logger = logging.getLogger(__name__)

ExportedRows = Literal["chunks", "documents"]

SPLIT_FOLDERS: dict[Split, str] = {"train": "train", "held_out": "validation"}  # upstream's names
ROWS_PER_BATCH = 1024
_HARMLESS = re.compile(r"(?!(con|prn|aux|nul|com\d|lpt\d)\b)[a-z0-9]([a-z0-9 ()._-]{0,98}[a-z0-9)_-])?", re.IGNORECASE)


def to_datasets(
    store: TokenStore, folder: str | Path, *, rows: ExportedRows = "chunks", sequence_length: int = 1024
) -> Path:
    """Write ``folder/train/<domain>`` and ``folder/validation/<domain>``, each for ``datasets.load_from_disk``.

    One column, ``input_ids`` of int32, as a tokenizer in ``Dataset.map`` gives. Domains have their own name as folder
    where that is plain, else the percent-encoded one of `files.encode_name`. Memory is bounded by a batch of rows;
    ``folder`` appears when all of it is written.

    Args:
        store: what to export, in its packing.
        folder: must not exist, or be empty.
        rows: "chunks" are the rows that training draws at ``sequence_length``, without padding, so that the tail of a
            packed domain is left out; "documents" are whole, without their final EOS.
        sequence_length: tokens in a chunk.

    Raises:
        InputError: there is something in ``folder``, it cannot be written, or the disk is full.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; export into a folder that does not, or delete it")
    files.make_folder(folder.parent)
    with files.refusal_reported(folder):
        place_beside = tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent)
    with full_disk_reported(folder), _quiet_datasets(), place_beside as beside:
        whole = Path(beside, "whole")
        places: list[tuple[str, Split]] = [(name, split) for split in SPLIT_FOLDERS for name in store.names]
        for name, split in _counted(places):
            batches = (
                _documents(store, name, split)
                if rows == "documents"
                else _chunks(store, name, split, sequence_length=sequence_length)
            )
            place = Path(SPLIT_FOLDERS[split], folder_name(name))
            if _save(batches, whole / place, Path(beside, "rows.arrow")) == 0:
                logger.warning("%s: left out: not a single row, and datasets opens no folder without one", place)
        whole.mkdir(exist_ok=True)
        whole.replace(folder)
    return folder


def _counted(places: Sequence[tuple[str, Split]]) -> Iterator[tuple[str, Split]]:
    """The domains and splits to write, showing how many are done."""
    with progress.shown("export", total=len(places), unit="datasets") as advance:
        for place in places:
            yield place
            advance(1)


def folder_name(domain: str) -> str:
    """The folder of a domain: its name where that is harmless on every system, else as `files.encode_name` has it."""
    return domain if _HARMLESS.fullmatch(domain) else files.encode_name(domain)


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Without a progress bar for every domain, even where there is no terminal."""
    import datasets

    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _chunks(store: TokenStore, name: str, split: Split, *, sequence_length: int) -> Iterator[list[np.ndarray]]:
    num_rows = store.num_sequences(name, sequence_length, split=split)
    for start in range(0, num_rows, ROWS_PER_BATCH):
        indices = np.arange(start, min(start + ROWS_PER_BATCH, num_rows))
        drawn = store.rows(name, indices, sequence_length, split=split)
        yield [tokens[:length] for tokens, length in zip(drawn.tokens, drawn.lengths, strict=True)]


def _documents(store: TokenStore, name: str, split: Split) -> Iterator[list[np.ndarray]]:
    documents = store.documents(name, split=split)
    while batch := list(islice(documents, ROWS_PER_BATCH)):
        yield batch


def _save(batches: Iterator[list[np.ndarray]], folder: Path, scratch: Path) -> int:
    """Rows saved, through an Arrow stream in ``scratch`` that datasets maps: Dataset.from_generator is far slower."""
    import datasets
    import pyarrow as pa

    schema = pa.schema({"input_ids": pa.list_(pa.int32())})
    num_rows = 0
    with pa.OSFile(str(scratch), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for batch in batches:
            offsets = np.cumsum([0, *map(len, batch)], dtype=np.int32)
            values = np.concatenate(batch).astype(np.int32)
            stream.write_batch(pa.record_batch([pa.ListArray.from_arrays(offsets, pa.array(values))], schema=schema))
            num_rows += len(batch)
    if num_rows:
        datasets.Dataset.from_file(str(scratch)).save_to_disk(folder)
    return num_rows
