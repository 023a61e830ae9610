"""Units as tasks that any process can take: all that one needs lies in the store's folder."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, connection, get_context, parent_process
from pathlib import Path

from doremi.corpus.preparing.encode import encode_unit
from doremi.corpus.preparing.work import WorkFolder
from doremi.corpus.reading.batches import Batch
from doremi.corpus.reading.documents import OnBadRecord
from doremi.corpus.reading.grouping import Unit
from doremi.corpus.storing.store import TOKENIZER_FOLDER
from doremi.corpus.tokenizing import tokenizers
from doremi.corpus.tokenizing.backends import Backend
from doremi.corpus.tokenizing.tokenizers import CorpusTokenizer
from doremi.errors import RunFailedError


@dataclass(frozen=True)
class EncoderSettings:
    """Where an encoder works, and what decides the fate of a document. Its tokenizer and hashes lie in ``store``."""

    store: Path
    held_out_fraction: float
    on_bad_record: OnBadRecord
    encode_with: Backend


class Encoder:
    """Turns units into shards and markers of one store. Opened once per process; the tokenizer is large.

    ``tokenizer``: that of the store, where the process has it open already.
    """

    def __init__(self, settings: EncoderSettings, tokenizer: CorpusTokenizer | None = None) -> None:
        self._settings = settings
        self._work = WorkFolder(settings.store)
        self._tokenizer = tokenizer or tokenizers.load(
            str(settings.store / TOKENIZER_FOLDER), encode_with=settings.encode_with
        )
        self._rule = self._work.rule(settings.held_out_fraction)

    def encode(self, ordinal: int, unit: Unit, *, advance: Callable[[Batch], None] = lambda _: None) -> None:
        """Write the shards of one unit, then its marker. Idempotent."""
        encoded = encode_unit(
            unit,
            self._settings.store,
            ordinal=ordinal,
            tokenizer=self._tokenizer,
            rule=self._rule,
            on_bad_record=self._settings.on_bad_record,
            advance=advance,
        )
        self._work.finish(ordinal, unit, encoded, encoded_by=self._tokenizer.encoder.name)


def encode_in_processes(units: Mapping[int, Unit], settings: EncoderSettings, *, num_workers: int) -> Iterator[int]:
    """Encode units, by ordinal, in ``num_workers`` processes; yields each ordinal when it is done, in any order.

    Raises:
        InputError: what `Encoder.encode` raises, in whichever unit comes to it first. Units begun are finished, no
            other is begun.
        RunFailedError: a process was killed.
    """
    others = set(active_children())
    # Not forked: the threads of Rust and Arrow do not survive that.
    pool = ProcessPoolExecutor(num_workers, get_context("spawn"), _start_worker, (settings, num_workers))
    try:
        futures = {pool.submit(_encode_here, ordinal, unit): ordinal for ordinal, unit in units.items()}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    except BrokenProcessPool:
        raise RunFailedError(
            "a worker process was killed, probably for want of memory; run this again with a smaller "
            "corpus.num_workers: input files that are finished are kept (a script that calls prepare with several "
            'workers needs `if __name__ == "__main__":` around it, as multiprocessing does)'
        ) from None
    except (KeyboardInterrupt, GeneratorExit):  # here, or in whoever takes what is yielded
        for process in set(active_children()) - others:
            process.terminate()  # its unit may take hours; the next preparation removes what is half-written
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_encoder: Encoder  # of this worker process


def _start_worker(settings: EncoderSettings, num_workers: int) -> None:
    global _encoder
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent ends this one
    os.environ.setdefault("RAYON_NUM_THREADS", str(max((os.cpu_count() or 1) // num_workers, 1)))
    _encoder = Encoder(settings)


def _encode_here(ordinal: int, unit: Unit) -> None:
    _encoder.encode(ordinal, unit)


def _die_with_parent() -> None:
    """An orphan would go on writing while the next preparation believes that it is alone."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
