"""The reference model's per-token losses on disk, so that further seeds and proxies read instead of recompute.

A folder holds one cache: ``manifest.json``, which says what the losses depend on, and ``nats.bin``, the rows of all
domains one after the other in one sparse file (`doremi.training.sparse_rows`). One file, since a file for each of 1,000
domains would take as many descriptors in every process. No torch.
"""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from doremi import files
from doremi.errors import InputError, RunFailedError
from doremi.training.sparse_rows import DTYPES, SparseRows, StoredDtype, complete, create, row_size

FORMAT = "doremi-reference-nats-2"
WITHOUT_CHECKSUMS = "doremi-reference-nats-1"  # the format of earlier releases
MANIFEST, NATS = "manifest.json", "nats.bin"
DISK_BLOCK_SIZE = 4096  # bytes; a row that lies alone in a block takes all of it


class CachedNats(NamedTuple):
    """What a cache knows of some rows."""

    nats: np.ndarray  # float32[B, L-1], natural log; 0 where there is no target, NaN where nothing was written
    is_there: np.ndarray  # bool[B]: the row is complete


class ReferenceCache:
    """nats[L-1] of a reference model by (domain, row). Use `ReferenceCache.open`.

    Safe to use from any number of processes at the same time, on one machine or several.
    """

    def __init__(self, folder: Path, stored: SparseRows, *, starts: list[int], row_counts: Mapping[str, int]) -> None:
        self.folder = folder
        self.names = tuple(row_counts)
        self._stored = stored
        self._starts = np.array(starts, np.int64)
        self._counts = np.array(list(row_counts.values()), np.int64)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        row_counts: Mapping[str, int],
        sequence_length: int,
        key: Mapping[str, str],
        dtype: StoredDtype = "float32",
        max_new_rows: int | None = None,
    ) -> ReferenceCache:
        """Open the cache in ``folder``, or make an empty one there. Neither takes time or space that grows with it.

        Args:
            folder: holds one cache and nothing else.
            row_counts: domain name to number of rows, in the order of ``domain_ids``. A cache that was made for more
                domains, in any order, serves as well.
            sequence_length: L, tokens in a row.
            key: whatever else the losses depend on, such as the digests of reference, corpus and tokenizer.
            dtype: how losses are stored. ``float16`` takes half the space, and rounds each by at most 0.05 %.
            max_new_rows: how many rows this run may write, for the check of disk space; None: all that are missing.

        Raises:
            InputError: the cache was made for something else (the message gives both values), the folder holds other
                files, the disk lacks the space that the new rows may take, or there are no losses to store.
        """
        folder = Path(folder).resolve()
        wanted = _manifest(row_counts, sequence_length, key, dtype)
        if (folder / MANIFEST).is_file():
            _check_manifest(folder, wanted)
        _check_free_space(folder, wanted, max_new_rows)
        if not (folder / MANIFEST).is_file():
            _create(folder, wanted)
        found = _check_manifest(folder, wanted)
        first_rows = dict(zip(found["row_counts"], accumulate(found["row_counts"].values(), initial=0), strict=False))
        stored = SparseRows(folder / NATS, **_shape(found))
        return cls(folder, stored, starts=[first_rows[name] for name in row_counts], row_counts=row_counts)

    def read(self, domain_ids: np.ndarray, rows: np.ndarray) -> CachedNats:
        """The losses of the rows ``(domain_ids[B], rows[B])``, int64 each.

        Raises:
            IndexError: there is no such domain, or no such row in it.
        """
        nats = self._stored.read(self._places(domain_ids, rows))
        return CachedNats(nats, complete(nats))

    def write(self, domain_ids: np.ndarray, rows: np.ndarray, nats: np.ndarray) -> None:
        """Store the losses of the rows ``(domain_ids[B], rows[B])``: ``nats[B, L-1]``, 0 where there is no target.

        Raises:
            RunFailedError: a loss is not finite, or too large for float16; none of these rows is stored.
            InputError: the disk is full.
            IndexError: there is no such domain, or no such row in it.
        """
        places = self._places(domain_ids, rows)
        if nats.shape != (len(places), self._stored.num_values):
            raise ValueError(f"expected nats of shape {(len(places), self._stored.num_values)}, got {nats.shape}")
        with np.errstate(over="ignore"):  # what overflows becomes infinite, which is refused
            values = nats.astype(self._stored.dtype)
        if not np.isfinite(values).all():
            row, target = np.argwhere(~np.isfinite(values))[0].tolist()
            where = f"domain {self.names[domain_ids[row]]!r}, row {rows[row]}, target {target}"
            raise RunFailedError(_refusal(where, float(nats[row, target]), self._stored.dtype))
        with _full_disk_reported(self.folder):
            self._stored.write(places, values)

    def coverage(self) -> dict[str, float]:
        """The share of each domain's rows that is there. Takes time in proportion to what was written."""
        return {
            name: self._stored.num_complete(start, start + count) / max(count, 1)
            for name, start, count in zip(self.names, self._starts.tolist(), self._counts.tolist(), strict=True)
        }

    def _places(self, domain_ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """int64[B]: the number of each row in the file."""
        if ((domain_ids < 0) | (domain_ids >= len(self.names))).any():
            raise IndexError(f"domains are numbered 0 to {len(self.names) - 1}, asked for {domain_ids.tolist()}")
        if (bad := (rows < 0) | (rows >= self._counts[domain_ids])).any():
            domain, row = domain_ids[bad][0], rows[bad][0]
            raise IndexError(f"{self.names[domain]!r} has {self._counts[domain]} rows, asked for row {row}")
        return self._starts[domain_ids] + rows


def _refusal(where: str, value: float, dtype: np.dtype) -> str:
    if math.isfinite(value):
        return f"the reference's loss of {where} is {value:g}, too large for {dtype.name}; cache it as float32"
    return (
        f"the reference's loss of {where} is {value}; stopped before it was stored. Check the reference model and this "
        "domain's data"
    )


# ---- the folder ----


def _has_form(found: dict[str, Any]) -> bool:
    """Whether the values are of the types that `_manifest` writes. By hand: a GPU machine may be without pydantic."""
    length, key, counts = (found.get(name) for name in ("sequence_length", "key", "row_counts"))
    return (
        found.get("dtype") in list(DTYPES)
        and type(length) is int
        and length >= 2
        and isinstance(key, dict)
        and all(isinstance(value, str) for value in key.values())
        and isinstance(counts, dict)
        and all(type(count) is int and count >= 0 for count in counts.values())
    )


def _manifest(
    row_counts: Mapping[str, int], sequence_length: int, key: Mapping[str, str], dtype: str
) -> dict[str, Any]:
    if dtype not in DTYPES:
        raise InputError(f"reference cache: dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    num_rows = sum(row_counts.values())
    if sequence_length < 2 or num_rows < 1:
        raise InputError(
            f"reference cache: {num_rows} rows of {sequence_length} tokens have no losses; it takes a row of 2 or more"
        )
    return {
        "format": FORMAT,
        "dtype": dtype,
        "sequence_length": sequence_length,
        "key": dict(key),
        "row_counts": dict(row_counts),
    }


def _shape(manifest: dict[str, Any]) -> dict[str, Any]:
    num_rows = sum(manifest["row_counts"].values())
    return {"num_rows": num_rows, "num_values": manifest["sequence_length"] - 1, "dtype": manifest["dtype"]}


def _create(folder: Path, manifest: dict[str, Any]) -> None:
    """Make the cache beside and rename it. Whoever comes second finds the folder taken, and uses what is there."""
    beside = folder.with_name(f".{folder.name}.{uuid4().hex}{files.PARTIAL}")
    files.make_folder(beside)
    try:
        with _full_disk_reported(folder):
            create(beside / NATS, **_shape(manifest))
            files.write_json(beside / MANIFEST, manifest)
        _rename_unless_taken(beside, folder)
    finally:
        if beside.exists():
            shutil.rmtree(beside)


def _rename_unless_taken(beside: Path, folder: Path) -> None:
    try:
        beside.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    files.fsync(folder.parent)


def _check_manifest(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The manifest of the cache in ``folder``, after checking that it serves."""
    found = files.read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    if isinstance(found, dict) and found.get("format") == WITHOUT_CHECKSUMS:
        raise InputError(
            f"{folder}: reference losses of an earlier release, which kept no checksums; delete that folder to compute "
            "them anew"
        )
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{folder}: has no manifest of a reference cache ({FORMAT}); name an empty folder")
    if not _has_form(found):
        raise InputError(
            f"{folder / MANIFEST}: values of other types than it had; delete that folder to compute them anew"
        )
    found_facts, wanted_facts = _facts(found), _facts(wanted)
    for fact in [*wanted_facts, *(fact for fact in found_facts if fact.startswith("key "))]:
        theirs, ours = found_facts.get(fact), wanted_facts.get(fact)
        if theirs != ours:
            raise InputError(
                f"{folder}: the cached reference losses have {fact} {theirs!r}, this run has {ours!r}; delete that "
                "folder to compute them anew, or name another one"
            )
    return found


def _facts(manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "sequence_length": manifest["sequence_length"],
        "dtype": manifest["dtype"],
        **{f"key {name}": value for name, value in manifest["key"].items()},
        **{f"rows of domain {name!r}:": count for name, count in manifest["row_counts"].items()},
    }


def _check_free_space(folder: Path, manifest: dict[str, Any], max_new_rows: int | None) -> None:
    shape = _shape(manifest)
    bytes_per_row = row_size(shape["num_values"], shape["dtype"])
    stored = folder / NATS
    needed = shape["num_rows"] * bytes_per_row - (stored.stat().st_blocks * 512 if stored.is_file() else 0)
    if max_new_rows is not None:
        blocks_per_row = math.ceil(bytes_per_row / DISK_BLOCK_SIZE)
        needed = min(needed, max_new_rows * blocks_per_row * DISK_BLOCK_SIZE)
    files.make_folder(folder.parent)
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise InputError(
            f"{folder}: the reference's losses may take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free. Store "
            "them as float16 (half of it), use fewer domains or steps, or turn the reference cache off"
        )


def _full_disk_reported(folder: Path) -> AbstractContextManager[None]:
    return files.full_disk_reported(
        lambda error: (
            f"{folder}: no room for the reference's losses: {error.strerror}; free some space and continue "
            "(what was stored is kept), store them as float16, or turn the reference cache off"
        )
    )
