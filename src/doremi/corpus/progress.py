"""Progress of one pass over the input files: a bar on a terminal, elsewhere a line a file and every half minute."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from doremi.corpus.documents import Chunk
from doremi.corpus.inputs import InputFile
from doremi.progress import SECONDS_BETWEEN_LINES

logger = logging.getLogger(__name__)


class Progress:
    """Counts what is read; the bar measures bytes on disk (ETA), its postfix documents and MB/s of text."""

    def __init__(self, verb: str, files: Sequence[InputFile]) -> None:
        self._verb = verb
        self._bar = tqdm(
            total=sum(file.num_bytes() for file in files) or None,
            desc=verb,
            unit="B",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
            leave=False,
        )
        self._num_files, self._num_finished = len(files), 0
        self._started = self._last_line = time.monotonic()
        self._num_documents = self._num_text_bytes = self._position = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def advance(self, chunk: Chunk) -> None:
        """Another chunk of the file in hand has been dealt with."""
        self._num_documents += len(chunk.documents)
        self._num_text_bytes += sum(document.num_bytes for document in chunk.documents)
        seconds = max(time.monotonic() - self._started, 1e-9)
        self._bar.set_postfix_str(f"{self._num_documents:,} documents, {self._num_text_bytes / 1e6 / seconds:.1f} MB/s")
        self._bar.update(chunk.position - self._position)
        self._position = chunk.position
        self._write_if_due()

    def finish(self, file: InputFile) -> None:
        """The file in hand is done, or was before."""
        self._bar.update(file.num_bytes() - self._position)
        self._position = 0
        self._num_finished += 1
        if self._bar.disable:
            logger.info("%s: %s (%s)", self._verb, file.name, self._so_far())

    def _write_if_due(self) -> None:
        """A line in the middle of a file that takes long."""
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            logger.info("%s: %s", self._verb, self._so_far())

    def _so_far(self) -> str:
        """Without documents where other processes read them."""
        files = f"{self._num_finished:,} of {self._num_files:,} input files"
        if not self._num_documents:
            return files
        return f"{files}, {self._num_documents:,} documents, {self._num_text_bytes / 1e6:,.1f} MB so far"
