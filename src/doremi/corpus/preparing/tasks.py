"""What a task of a preparation does, on whichever machine an engine starts it. All machines see the same storage.

The objects here are what datatrove calls a pipeline step: called with (data, rank, number of tasks). They carry the
recipe and the folder, nothing else: each task lists the inputs anew and checks them against the plan.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from doremi.corpus.config import CorpusConfig, SetConfig
from doremi.corpus.preparing.job import Job, config_digest, finish, finished
from doremi.corpus.preparing.units import encode_in_processes
from doremi.corpus.preparing.work import Failure
from doremi.corpus.storing.lock import die_with_parent, full_disk_reported, joined, locked
from doremi.corpus.storing.store import TOKENIZER_FOLDER
from doremi.corpus.tokenizing import tokenizers
from doremi.errors import InputError, RunFailedError


class _Step:
    """A step that can be sent to another machine; relative paths are those of the machine that made it."""

    def __init__(self, config: CorpusConfig, folder: Path, *, sets: Sequence[SetConfig] = ()) -> None:
        self._config = config.model_dump_json()
        self._sets = [item.model_dump_json() for item in sets]
        self._folder = str(folder.absolute())
        self._directory = str(Path.cwd())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._folder})"

    @contextmanager
    def _job(self) -> Iterator[Job | None]:
        """The job as this machine sees it; None where it is finished already."""
        config, folder = CorpusConfig.model_validate_json(self._config), Path(self._folder)
        sets = [SetConfig.model_validate_json(item) for item in self._sets]
        with contextlib.chdir(self._directory), full_disk_reported(folder):
            if finished(folder, config_digest(config, sets), config) is not None:
                yield None
                return
            job = Job.of(config, folder, sets=sets)
            if (difference := job.work.difference(job.digest, job.inputs)) is not None:
                raise InputError(
                    f"{folder}: host {socket.gethostname()} sees {difference} than the machine that planned; all of "
                    "them need the same files at the same paths"
                )
            yield job


class EncodeShare(_Step):
    """Encode every N-th unit that has no marker yet.

    The work is done in processes of the task's own, so that one that is killed is noticed and reported. What went
    wrong is left in the store's folder for whoever puts the job together; engines would show a traceback, or nothing.

    Args:
        config: of the corpus.
        folder: of the store.
        sets: the evaluation sets that are stored with it.
        num_threads: CPUs that a task may use; None: all that it sees.
    """

    def __init__(
        self, config: CorpusConfig, folder: Path, *, sets: Sequence[SetConfig] = (), num_threads: int | None = None
    ) -> None:
        super().__init__(config, folder, sets=sets)
        self._num_threads = num_threads
        self._head = (socket.gethostname(), os.getpid())

    def __call__(self, data: object, rank: int, num_tasks: int) -> None:
        """Task ``rank`` of ``num_tasks``."""
        if (socket.gethostname(), os.getpid()) != self._head:
            threading.Thread(target=die_with_parent, args=(os.getppid(),), daemon=True).start()
        if self._num_threads is not None:
            os.environ["RAYON_NUM_THREADS"] = str(self._num_threads)
        try:
            with joined(Path(self._folder)), self._job() as job:
                if job is not None:
                    _encode(job, rank, num_tasks)
        except (InputError, RunFailedError) as error:
            Failure.of(error).write(Path(self._folder), rank)


def _encode(job: Job, rank: int, num_tasks: int) -> None:
    mine = {ordinal: unit for ordinal, unit in job.left().items() if ordinal % num_tasks == rank}
    if mine:
        for _ in encode_in_processes(mine, job.encoder_settings, num_workers=min(job.config.num_workers, len(mine))):
            pass


class Finish(_Step):
    """Put the job together when all tasks have ended; the last job on a cluster. Ends its process where it fails."""

    def __call__(self, data: object, rank: int, num_tasks: int) -> None:
        """As the only task."""
        try:
            with locked(Path(self._folder)), self._job() as job:
                if job is not None:
                    check_encoded(job)
                    finish(job, tokenizers.load(str(job.folder / TOKENIZER_FOLDER)))
        except (InputError, RunFailedError) as error:
            print(f"doremi: {error}", file=sys.stderr)
            sys.exit(2 if isinstance(error, InputError) else 1)


def check_encoded(job: Job) -> None:
    """See that every unit of a job is encoded.

    Raises:
        InputError: a task met something that it cannot use; what it says is passed on.
        RunFailedError: a task failed otherwise, or was killed with all its processes.
    """
    failures = job.work.failures()
    if failures:
        raise failures[0].as_error(others=len(failures) - 1)
    if left := [file for unit in job.left().values() for file in unit.files]:
        num_files = sum(len(unit.files) for unit in job.units)
        raise RunFailedError(
            f"{job.folder}: {len(left)} of {num_files} input files were not encoded, {left[0].name} first: their "
            "tasks were killed or ran out of time; run this again: what is finished is kept"
        )
