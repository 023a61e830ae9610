"""Parquet files that are kept so that nothing is computed twice: read under their key alone, and only undamaged.

Parquet's own checksums cover data pages alone: of a small file, nine single flipped bits in 12,560 gave other rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from doremi import files
from doremi.errors import InputError

_KEY, _DIGEST = b"doremi.key", b"doremi.digest"


def write(path: Path, table: pa.Table, *, key: str, metadata: Mapping[bytes, bytes] | None = None) -> None:
    """Write a table atomically.

    Args:
        path: a ``.parquet`` file.
        table: columns of numbers and strings.
        key: of everything that the table depends on; `read` asks for it.
        metadata: further texts to keep with the table, by name.
    """
    texts = {**(metadata or {}), _KEY: key.encode()}
    described = table.replace_schema_metadata({**texts, _DIGEST: _digest(table, texts).encode()})
    with files.atomic_path(path) as beside:
        pq.write_table(described, beside)


def read(path: Path, *, key: str, remedy: str, complaint: str = "damaged") -> pa.Table | None:
    """What `write` put there under the same key, its metadata in the schema; None: nothing.

    Raises:
        InputError: the file is damaged; the message has ``complaint`` and ends with ``remedy``.
    """
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
        texts = dict(table.schema.metadata or {})
        expected = texts.pop(_DIGEST, None)  # files of earlier releases have none
        damage = "" if expected in (None, _digest(table, texts).encode()) else "its digest is not that of its content"
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        texts, damage = {}, str(error).partition("\n")[0]
    if damage:
        raise InputError(f"{path}: {complaint} ({damage}); {remedy}")
    return table if texts.get(_KEY) == key.encode() else None


def _digest(table: pa.Table, texts: Mapping[bytes, bytes]) -> str:
    hasher = xxhash.xxh3_128()
    named = {name: text for name, text in texts.items() if name.startswith(b"doremi.")}  # Arrow adds some of its own
    hasher.update(repr([sorted(named.items()), table.num_rows, table.column_names]).encode())
    for column in table.columns:
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        hasher.update(column.to_numpy().tobytes() if is_number else files.digest_json(column.to_pylist()).encode())
    return hasher.hexdigest()
