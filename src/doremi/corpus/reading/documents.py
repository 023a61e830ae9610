"""From an input file to documents, in chunks of bounded size; what cannot be used is an error or is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import xxhash

from doremi import files
from doremi.corpus.reading.inputs import InputFile, Kind
from doremi.corpus.reading.records import MAX_RECORD_BYTES, TooLong, open_records
from doremi.errors import InputError

CHUNK_BYTES = 2 << 20  # of content: enough documents to keep every Rust thread busy; encodings take 40 times the text
CHUNK_DOCUMENTS = 8192
EMPTY = "empty document"
TOO_LONG = "too long"

OnBadRecord = Literal["error", "skip"]


class BadRecordError(InputError):
    """A record that is no document. ``reason`` is the class of fault that it is counted under when it is skipped."""

    def __init__(self, message: str, *, reason: str = "") -> None:  # the default lets it travel between processes
        super().__init__(message)
        self.reason = reason


class Document(NamedTuple):
    """One document of a domain."""

    domain: str
    content: str | np.ndarray  # text, or token ids int64[n]
    hash: int  # XXH3-64 of the text in UTF-8, or of the ids as little-endian int64
    num_bytes: int  # of the text in UTF-8, or of the ids
    number: int = 0  # of its record, where it is long enough for messages about it


class Chunk(NamedTuple):
    """Consecutive documents of an input file, and what was left out between them."""

    documents: list[Document]
    skipped: Counter[str]  # records by reason
    position: int  # bytes of the input file, as it is on disk, read so far


def read(file: InputFile, *, on_bad_record: OnBadRecord = "error") -> Iterator[Chunk]:
    """The documents of ``file`` in order, in chunks of about 2 MB.

    Empty documents are always left out and counted; they hold nothing that could be trained on.

    Raises:
        BadRecordError: a record is no document and ``on_bad_record`` is "error"; the message begins with file:line.
        InputError: the file as a whole cannot be read: truncated, not of its type, a reader that cannot be imported.
    """
    parse = _PARSERS[file.kind]
    documents: list[Document] = []
    skipped: Counter[str] = Counter()
    num_bytes = position = 0
    for number, value, position in open_records(file):
        try:
            document = parse(_of_usable_length(value), file)
        except BadRecordError as error:
            if on_bad_record == "error":
                raise refused(file, number, error) from None
            skipped[error.reason] += 1
            continue
        value = None
        if document.num_bytes == 0:
            skipped[EMPTY] += 1
            continue
        documents.append(document if document.num_bytes < CHUNK_BYTES else document._replace(number=number))
        num_bytes += document.num_bytes
        if num_bytes >= CHUNK_BYTES or len(documents) >= CHUNK_DOCUMENTS:
            chunk = Chunk(documents, skipped, position)
            del document, documents  # which the encoder holds now, and lets go of
            yield chunk
            del chunk
            documents, skipped, num_bytes = [], Counter(), 0
    yield Chunk(documents, skipped, position)


def refused(file: InputFile, number: int, error: BadRecordError) -> BadRecordError:
    """The error with the place of its record, and what to do about it."""
    advice = "correct the record, or set corpus.on_bad_record=skip to leave such records out and count them"
    return BadRecordError(f"{where(file, number)}: {error}; {advice}", reason=error.reason)


def _of_usable_length(value: Any) -> Any:
    if isinstance(value, TooLong):
        message = f"a {value.what} of more than {MAX_RECORD_BYTES:,} bytes, the most that a record may have"
        raise BadRecordError(message, reason=TOO_LONG)
    return value


def where(file: InputFile, number: int) -> str:
    """``path:line`` of a record, or what comes nearest."""
    if file.kind is Kind.JSON_LINES:
        return f"{file.name}:{number}"
    if file.kind is Kind.TEXT:
        return str(file.paths[number - 1])
    return f"{file.name}: {'item' if file.kind is Kind.READER else 'row'} {number}"


def _parse_line(line: bytes, file: InputFile) -> Document:
    try:
        record = json.loads(line.decode("utf-8").removeprefix("\ufeff").rstrip())
    except UnicodeDecodeError as error:
        raise BadRecordError(f"invalid UTF-8 at byte {error.start + 1} of the line", reason="invalid UTF-8") from None
    except json.JSONDecodeError as error:
        message = f"not valid JSON: {error.msg} at column {error.colno}; expected one JSON object a line"
        raise BadRecordError(message, reason="malformed JSON") from None
    except RecursionError:
        raise BadRecordError("not valid JSON: nested too deep", reason="malformed JSON") from None
    except ValueError:  # beyond the 4,300 digits that Python reads
        raise BadRecordError("not valid JSON: a number of thousands of digits", reason="malformed JSON") from None
    if not isinstance(record, dict):
        raise BadRecordError(f"expected a JSON object, found {_kind_of(record)}", reason="malformed JSON")
    return _parse_fields(record, file)


def _parse_row(row: dict[str, Any], file: InputFile) -> Document:
    for column, value in row.items():
        if isinstance(value, UnicodeDecodeError):
            raise BadRecordError(f"invalid UTF-8 at byte {value.start + 1} of {column!r}", reason="invalid UTF-8")
    return _parse_fields(row, file)


def _parse_fields(record: dict[str, Any], file: InputFile) -> Document:
    config = file.config
    if file.domain is not None:
        domain = file.domain
    else:
        assert config.domain_field is not None  # `inputs` places no file without one of the two
        domain = _domain(_field(record, config.domain_field, "domain_field"))
    if config.text_field not in record and config.ids_field in record:
        return _tokens(domain, record[config.ids_field])
    return _text(domain, _field(record, config.text_field, "text_field"))


def _parse_text_file(data: bytes, file: InputFile) -> Document:
    assert file.domain is not None
    try:
        return _text(file.domain, data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRecordError(f"invalid UTF-8 at byte {error.start + 1}", reason="invalid UTF-8") from None


def _parse_item(item: Any, file: InputFile) -> Document:
    if not isinstance(item, tuple) or len(item) != 2:
        raise InputError(
            f"{file.name} yielded {_kind_of(item)}; it must yield pairs (domain, text) or (domain, token ids)"
        )
    name, content = item
    domain = _domain(name) if file.domain is None else file.domain
    return _text(domain, content) if isinstance(content, str) else _tokens(domain, content)


def _text(domain: str, text: Any) -> Document:
    if not isinstance(text, str):
        raise BadRecordError(f"the text is {_kind_of(text)}, expected a string", reason="text is not a string")
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise BadRecordError(
            f"the text has a lone surrogate at character {error.start + 1}: no valid Unicode", reason="invalid UTF-8"
        ) from None
    if len(data) > MAX_RECORD_BYTES:
        message = f"a text of {len(data):,} bytes; a record may have at most {MAX_RECORD_BYTES:,}"
        raise BadRecordError(message, reason=TOO_LONG)
    return Document(domain, text, xxhash.xxh3_64_intdigest(data), len(data))


def _tokens(domain: str, ids: Any) -> Document:
    try:
        array = np.asarray(ids)
    except (ValueError, OverflowError, TypeError):
        array = np.empty((0, 0))
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise BadRecordError(
            f"the content is {_kind_of(ids)}, expected text or a flat list of token ids", reason="no text or token ids"
        )
    data = array.astype("<i8")
    return Document(domain, data, xxhash.xxh3_64_intdigest(data.tobytes()), data.nbytes)


def _domain(name: Any) -> str:
    if not isinstance(name, str):
        raise BadRecordError(f"the domain is {_kind_of(name)}, expected a string", reason="domain name")
    try:
        files.encode_name(name)
    except InputError as error:
        raise BadRecordError(str(error), reason="domain name") from None
    return name


def _field(record: dict[str, Any], path: str, setting: str) -> Any:
    """The value at a dotted path; a key that holds the dots itself comes first."""
    if path in record:
        return record[path]
    value: Any = record
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            fields = ", ".join(_field_names(record)) or "none"
            raise BadRecordError(f"no field {path!r} ({setting}); the record has {fields}", reason="missing field")
        value = value[part]
    return value


def _field_names(record: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in record.items():
        if isinstance(value, dict) and value:
            yield from _field_names(value, f"{prefix}{key}.")
        else:
            yield repr(f"{prefix}{key}")


def _kind_of(value: Any) -> str:
    shown = repr(value)
    return f"{shown if len(shown) <= 40 else shown[:37] + '...'} ({type(value).__name__})"


_PARSERS: dict[Kind, Callable[[Any, InputFile], Document]] = {
    Kind.JSON_LINES: _parse_line,
    Kind.TEXT: _parse_text_file,
    Kind.PARQUET: _parse_row,
    Kind.DATASET: _parse_row,
    Kind.HUB_DATASET: _parse_row,
    Kind.READER: _parse_item,
}
