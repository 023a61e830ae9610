"""The documents of a unit in batches of about 2 MB, however many files they come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from doremi.corpus.reading.documents import CHUNK_BYTES, CHUNK_DOCUMENTS, Chunk, Document, OnBadRecord, read
from doremi.corpus.reading.grouping import Unit
from doremi.corpus.reading.inputs import InputFile


class FileChunk(NamedTuple):
    """A chunk with the file that it is from, and the number of that file in its unit."""

    number: int
    file: InputFile
    chunk: Chunk


class Batch(NamedTuple):
    """Consecutive chunks of the files of a unit."""

    chunks: list[FileChunk]
    num_documents: int
    num_bytes: int  # of text, or of token ids
    position: int  # bytes of the unit, as it is stored, read so far

    def documents(self) -> Iterator[tuple[Document, InputFile]]:
        """Every document with its file, in order."""
        for part in self.chunks:
            for document in part.chunk.documents:
                yield document, part.file


def read_unit(unit: Unit, *, on_bad_record: OnBadRecord) -> Iterator[Batch]:
    """The documents of all files of ``unit`` in order; small files share a batch.

    Raises:
        InputError: as `doremi.corpus.reading.documents.read`.
    """
    batch = Batch([], 0, 0, 0)
    for part, position in _chunks(unit, on_bad_record):
        num_bytes = sum(document.num_bytes for document in part.chunk.documents)
        num_documents = len(part.chunk.documents)
        if batch.num_bytes + num_bytes > CHUNK_BYTES or batch.num_documents + num_documents > CHUNK_DOCUMENTS:
            if batch.chunks:
                yield batch
            batch = Batch([], 0, 0, 0)
        batch.chunks.append(part)
        batch = Batch(batch.chunks, batch.num_documents + num_documents, batch.num_bytes + num_bytes, position)
    yield batch


def _chunks(unit: Unit, on_bad_record: OnBadRecord) -> Iterator[tuple[FileChunk, int]]:
    before = position = 0
    for number, file in enumerate(unit.files):
        for chunk in read(file, on_bad_record=on_bad_record):
            position = before + chunk.position
            yield FileChunk(number, file, chunk), position
        before = position
