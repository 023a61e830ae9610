"""Datasets of the Hugging Face hub, streamed: nothing is kept on disk, and no code of a dataset is ever run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from doremi.corpus.config import HubDatasetConfig
from doremi.errors import InputError, MissingFileError

_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubPart(NamedTuple):
    """One of the dataset's own files: the unit of work."""

    number: int  # from 0
    num_parts: int
    commit: str | None  # what a branch stood for when the preparation was begun; None for a local folder
    version: str  # the commit, or a hash of names and times of the files in a local folder


def divide(config: HubDatasetConfig, *, commit: str | None = None) -> list[HubPart]:
    """The parts of a dataset, as many as it has files.

    Args:
        config: what to read; its revision may be a branch, which moves.
        commit: what that stood for when the preparation was begun, if it was.

    Raises:
        MissingFileError: no such dataset, or the hub cannot be reached.
        InputError: no such configuration or split, or a dataset that needs code of its own.
    """
    import datasets

    with _failures_reported(config):
        builder = datasets.load_dataset_builder(config.name, config.config, revision=commit or config.revision)
        commit = builder.hash if _COMMIT.fullmatch(builder.hash or "") else None
        num_parts: int = _load(config, commit).num_shards
    return [HubPart(number, num_parts, commit, builder.hash) for number in range(num_parts)]


def rows(
    config: HubDatasetConfig, part: HubPart, *, columns: Callable[[list[str]], list[str] | None]
) -> Iterator[dict[str, Any]]:
    """The rows of one part in order; of the columns there are, those that ``columns`` chooses (None: all).

    Raises:
        MissingFileError, InputError: as `divide`, or a file that cannot be read to the end.
    """
    with _failures_reported(config):
        stream = _load(config, part.commit).shard(num_shards=part.num_parts, index=part.number)
        chosen = columns(stream.column_names or [])
        yield from stream.select_columns(chosen) if chosen else stream


def _load(config: HubDatasetConfig, commit: str | None) -> Any:
    import datasets

    return datasets.load_dataset(
        config.name, config.config, split=config.split, revision=commit or config.revision, streaming=True
    )


@contextmanager
def _failures_reported(config: HubDatasetConfig) -> Iterator[None]:
    """Turn what datasets and the hub's client raise into one error that names the dataset."""
    import pyarrow as pa
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    name = f"dataset {config.name}"
    try:
        yield
    except (FileNotFoundError, ConnectionError, HfHubHTTPError) as error:
        raise MissingFileError(
            f"{name}: cannot be had from the Hugging Face hub, nor is it a local folder of data files: "
            f"{_one_line(error)}; check its name, the network, HF_HUB_OFFLINE, and that you may read it (hf auth login)"
        ) from error
    except (ValueError, RuntimeError, OSError, DatasetsError, pa.ArrowException) as error:
        where = f"config {config.config}, split {config.split}"
        raise InputError(f"{name} ({where}): cannot be read: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
