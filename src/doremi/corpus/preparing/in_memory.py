"""What a Python program has of a domain (a dataset, a list of texts, a list of datasets) as one `datasets.Dataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doremi.errors import InputError, first_line

if TYPE_CHECKING:
    from datasets import Dataset

EXPECTED = "give {domain name: dataset}, each a datasets.Dataset, a list of texts or a list of datasets"


def as_datasets(domains: Mapping[str, Any], *, text_column: str) -> dict[str, Dataset]:
    """The dataset of each domain.

    Raises:
        InputError: not a mapping from names, no domain, or something that is not read; says how to make it readable.
    """
    if not isinstance(domains, Mapping):
        raise InputError(f"from_datasets: got {_kind(domains)}; {EXPECTED}")
    if not domains:
        raise InputError(f"from_datasets: no dataset given; {EXPECTED}")
    for name in domains:
        if not isinstance(name, str):
            raise InputError(f"from_datasets: the domain name {name!r} is {_kind(name)}, not a string; {EXPECTED}")
    return {name: _as_dataset(name, value, text_column) for name, value in domains.items()}


def _as_dataset(name: str, value: Any, text_column: str) -> Dataset:
    import datasets

    if isinstance(value, datasets.Dataset):
        return value
    if isinstance(value, datasets.DatasetDict):
        raise InputError(
            f"from_datasets: {name!r} is a DatasetDict with the splits {', '.join(map(repr, value))}; give one of "
            f"them, such as dataset[{next(iter(value), 'train')!r}]"
        )
    if isinstance(value, datasets.IterableDataset):
        raise InputError(
            f"from_datasets: {name!r} is streamed, and streams are not read from Python; name the dataset in a recipe "
            "(corpus.inputs[].dataset), or make it a Dataset: datasets.Dataset.from_list(list(stream))"
        )
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _of_sequence(name, value, text_column)
    raise InputError(f"from_datasets: {name!r} is {_kind(value)}; {EXPECTED}")


def _of_sequence(name: str, values: Sequence[Any], text_column: str) -> Dataset:
    import datasets

    if not values:
        raise InputError(f"from_datasets: {name!r} is an empty list; leave the domain out, or give texts")
    kind: type = datasets.Dataset if isinstance(values[0], datasets.Dataset) else str
    for index, value in enumerate(values):
        if not isinstance(value, kind):
            raise InputError(
                f"from_datasets: item {index} of {name!r} is {_kind(value)}, expected {_kind_of(kind)}; {EXPECTED}"
            )
    if kind is str:
        return datasets.Dataset.from_dict({text_column: list(values)})
    try:
        return datasets.concatenate_datasets(list(values))
    except ValueError as error:  # columns of different types
        raise InputError(f"from_datasets: the datasets of {name!r} do not fit together: {first_line(error)}") from None


def _kind(value: object) -> str:
    return _kind_of(type(value))


def _kind_of(kind: type) -> str:
    return f"a {kind.__name__}"
