"""From an input file to raw records: lines, rows, whole files or what a reader yields. Memory is bounded by a block."""

from __future__ import annotations

import importlib
import io
import itertools
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from doremi.corpus.reading import hub
from doremi.corpus.reading.hub import HubPart
from doremi.corpus.reading.inputs import InputFile, Kind
from doremi.corpus.reading.parquet import RowGroups, open_parquet
from doremi.corpus.reading.sources import Source, damage_reported, num_bytes, opened
from doremi.errors import InputError, shorten

BLOCK_BYTES = 1 << 20
MAX_RECORD_BYTES = 64 << 20  # of a line, a text file or a text: ten copies of it may be in memory
ROWS_PER_BATCH = 256
BATCH_BYTES = 4 << 20  # of rows at a time, unless one alone is larger
_CODECS = {".gz": "gzip", ".zst": "zstd"}


class Record(NamedTuple):
    """Something that may be a document."""

    number: int  # line, row, file or item, from 1
    value: Any
    position: int  # bytes of the input file, as it is stored, read so far; for progress


class TooLong(NamedTuple):
    """In place of a line or a file of more than `MAX_RECORD_BYTES`, of which no more was kept."""

    what: str


def open_records(file: InputFile) -> Iterator[Record]:
    """The records of ``file`` in order.

    Raises:
        InputError: a truncated or damaged file, a remote one that cannot be reached, or a reader that cannot be called;
            the message names it.
    """
    if file.kind is Kind.JSON_LINES:
        return _lines(file.paths[0])
    if file.kind is Kind.TEXT:
        return _whole_files(file)
    if file.kind is Kind.PARQUET:
        return _parquet_rows(file)
    if file.kind is Kind.DATASET:
        return _dataset_rows(file)
    if file.kind is Kind.HUB_DATASET:
        return _hub_rows(file)
    return _items(file)


def _lines(path: Source) -> Iterator[Record]:
    """Lines that are not blank. pyarrow decompresses: it bounds memory and notices a stream that was cut short."""
    with opened(path) as raw:
        stream = io.BufferedReader(_decompressed(raw, path), BLOCK_BYTES)
        for number in itertools.count(1):
            line = stream.readline(MAX_RECORD_BYTES + 1)
            if not line:
                return
            if len(line) > MAX_RECORD_BYTES:
                while line and not line.endswith(b"\n"):
                    line = stream.readline(BLOCK_BYTES)
                yield Record(number, TooLong("line"), raw.tell())
            elif not line.isspace():
                yield Record(number, line, raw.tell())


def _whole_files(file: InputFile) -> Iterator[Record]:
    position = 0
    for number, path in enumerate(file.paths, start=1):
        with opened(path) as raw:
            stream = _decompressed(raw, path)  # which closes the file when it is collected
            data = _read_whole(stream)
            position += raw.tell()
        yield Record(number, data, position)


def _read_whole(stream: Any) -> bytes | TooLong:
    blocks: list[bytes] = []
    num_bytes = 0
    while block := stream.read(BLOCK_BYTES):
        blocks.append(block)
        num_bytes += len(block)
        if num_bytes > MAX_RECORD_BYTES:
            return TooLong("file")
    return b"".join(blocks)


def _decompressed(raw: Any, path: Source) -> Any:
    import pyarrow as pa

    codec = _CODECS.get(path.suffix.lower())
    if codec is None:
        return raw
    if num_bytes(path) == 0:  # which Arrow takes for a stream of nothing
        raise EOFError(f"0 bytes are no {codec} stream")
    return pa.CompressedInputStream(raw, codec)


def _parquet_rows(file: InputFile) -> Iterator[Record]:
    with open_parquet(file.paths[0]) as source:
        if isinstance(file.part, RowGroups):
            groups, first_row = range(file.part.first, file.part.stop), file.part.first_row
        else:
            groups, first_row = range(source.num_row_groups), 0
        metadata = [source.metadata.row_group(group) for group in groups]
        num_rows = sum(group.num_rows for group in metadata)
        columns = _columns(file, source.schema_arrow.names)
        batch_size = _rows_at_a_time(sum(group.total_byte_size for group in metadata), num_rows)
        batches = source.iter_batches(batch_size, row_groups=groups, columns=columns)
        yield from _rows(batches, num_rows, file, first_row=first_row)


def _dataset_rows(file: InputFile) -> Iterator[Record]:
    import datasets

    if file.dataset is not None:
        source = file.dataset
    else:
        with damage_reported(file.paths[0]):
            source = datasets.load_from_disk(str(file.paths[0]))
    columns = _columns(file, source.column_names)
    batch_size = _rows_at_a_time(source.data.nbytes, source.data.num_rows)
    batches = source.select_columns(columns or source.column_names).with_format("arrow").iter(batch_size)
    yield from _rows(batches, len(source), file)


def _rows_at_a_time(num_bytes: int, num_rows: int) -> int:
    """As many as have `BATCH_BYTES` together on average, between 1 and `ROWS_PER_BATCH`."""
    return min(max(BATCH_BYTES * num_rows // max(num_bytes, 1), 1), ROWS_PER_BATCH)


def _hub_rows(file: InputFile) -> Iterator[Record]:
    assert file.config.dataset is not None
    assert isinstance(file.part, HubPart)
    rows = hub.rows(file.config.dataset, file.part, columns=lambda available: _columns(file, available))
    for number, row in enumerate(rows, start=1):
        yield Record(number, row, 0)


def _columns(file: InputFile, available: Iterable[str]) -> list[str] | None:
    """The columns that can matter, so that the others are not read; None for all, where one of ours is missing."""
    config = file.config
    text = config.text_field if config.text_field in available else config.text_field.split(".")[0]
    content = text if text in available else config.ids_field
    wanted = {content}
    if file.domain is None and config.domain_field is not None:
        field = config.domain_field
        wanted.add(field if field in available else field.split(".")[0])
    return sorted(wanted) if wanted <= set(available) else None


def _rows(batches: Iterable[Any], num_rows: int, file: InputFile, *, first_row: int = 0) -> Iterator[Record]:
    size = file.num_bytes()
    number = 0
    for batch in batches:
        columns = [_values(column) for column in batch.columns]
        for row in zip(*columns, strict=True):
            number += 1
            record = dict(zip(batch.schema.names, row, strict=True))
            yield Record(first_row + number, record, size * number // num_rows)


def _values(column: Any) -> Sequence[Any]:
    """A column as Python values; lists of integers as NumPy views of Arrow's buffer, which a list would copy 10x."""
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    is_list = pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
    if not is_list or not pa.types.is_integer(array.type.value_type) or array.null_count or array.values.null_count:
        return _python_values(array)
    flat, offsets = array.values.to_numpy(), array.offsets.to_numpy()
    return [flat[start:stop] for start, stop in itertools.pairwise(offsets)]


def _python_values(array: Any) -> list[Any]:
    """A value that Arrow calls a string, but that is no valid UTF-8, is the UnicodeDecodeError that says so."""
    try:
        values: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        values = list(map(_python_value, array))
    return values


def _python_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error


def _items(file: InputFile) -> Iterator[Record]:
    reader = _import_reader(file.config.reader or "")
    with _failures_reported(file.name):
        produced = reader()
        is_iterable = isinstance(produced, Iterable) and not isinstance(produced, str | bytes | Mapping)
    if not is_iterable:
        raise InputError(
            f"{file.name} returned {type(produced).__name__}; it must be a function without arguments that yields "
            "(domain, text) or (domain, token ids)"
        )
    with _failures_reported(file.name):
        items = iter(produced)
    for number in itertools.count(1):
        with _failures_reported(f"{file.name}: after item {number - 1}"):
            try:
                item = next(items)
            except StopIteration:
                return
        yield Record(number, item, 0)


def _import_reader(name: str) -> Any:
    module_name, colon, function_name = name.partition(":")
    if not colon or not module_name.strip(".") or module_name.startswith(".") or not function_name:
        raise InputError(f"reader {name!r}: expected package.module:function")
    try:
        with _failures_reported(f"reader {name}"):
            module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"reader {name}: cannot import {module_name!r} ({error}); is it installed, or its folder on PYTHONPATH?"
        ) from error
    reader = getattr(module, function_name, None)
    if not callable(reader):
        raise InputError(f"reader {name}: {module_name} has no function {function_name!r}")
    return reader


@contextmanager
def _failures_reported(name: str) -> Iterator[None]:
    """Turn whatever a user's own code raises into one error that says where; it may even end the process.

    The place is the line of the user's code, or of what it called, that raised.
    """
    try:
        yield
    except (InputError, ImportError, StopIteration):
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename}:{where.lineno}"
        raise InputError(
            f"{name}: failed with {type(error).__name__}{_described(error)} at {place}; correct the reader"
        ) from error


def _described(error: BaseException) -> str:
    try:
        return f": {shorten(str(error), 300)}" if str(error) else ""
    except Exception:  # noqa: BLE001 (its own text is the user's code as well)
        return ""
