"""Progress of one pass over the input files: a bar on a terminal, elsewhere a line a unit and every half minute."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from doremi.corpus.reading.batches import Batch
from doremi.corpus.reading.grouping import Unit
from doremi.launch.progress import SECONDS_BETWEEN_LINES

logger = logging.getLogger(__name__)


class Progress:
    """Counts what is read; the bar measures bytes on disk (ETA), its postfix documents and MB/s of text."""

    def __init__(self, verb: str, units: Sequence[Unit]) -> None:
        self._verb = verb
        self._bar = tqdm(
            total=sum(unit.num_bytes for unit in units) or None,
            desc=verb,
            unit="B",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
            leave=False,
        )
        self._num_files, self._num_finished = sum(len(unit.files) for unit in units), 0
        self._started = self._last_line = time.monotonic()
        self._num_documents = self._num_text_bytes = self._position = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def advance(self, batch: Batch) -> None:
        """Another batch of the unit in hand has been dealt with."""
        self._num_documents += batch.num_documents
        self._num_text_bytes += batch.num_bytes
        seconds = max(time.monotonic() - self._started, 1e-9)
        self._bar.set_postfix_str(f"{self._num_documents:,} documents, {self._num_text_bytes / 1e6 / seconds:.1f} MB/s")
        self._bar.update(batch.position - self._position)
        self._position = batch.position
        self._write_if_due()

    def finish(self, unit: Unit) -> None:
        """The unit in hand is done, or was before."""
        self._bar.update(unit.num_bytes - self._position)
        self._position = 0
        self._num_finished += len(unit.files)
        if self._bar.disable:
            logger.info("%s: %s (%s)", self._verb, unit.name, self._so_far())

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
