"""The input files of a preparation in tasks, run by datatrove: on this machine or on a Ray cluster.

Unlike `corpus.num_workers`, which is enough for one machine, this scales to as many machines as there are units of
input files.
Each is an ``encode_all`` for `doremi.corpus.prepare`. `doremi.corpus.preparing.slurm` does the same in batch jobs.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doremi.corpus.preparing.job import Job
from doremi.corpus.preparing.tasks import EncodeShare, check_encoded
from doremi.corpus.storing.lock import FolderLock
from doremi.corpus.tokenizing.tokenizers import CorpusTokenizer
from doremi.errors import InputError, install_hint
from doremi.launch import progress

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class LocalTasks:
    """``num_tasks`` tasks in datatrove's LocalPipelineExecutor, as many at once as there are CPUs."""

    num_tasks: int

    def __post_init__(self) -> None:
        import_executor("LocalPipelineExecutor")  # what is missing should be noticed before a tokenizer is trained

    def __call__(self, job: Job, tokenizer: CorpusTokenizer, lock: FolderLock) -> None:
        """Encode what is left of ``job``; raises what `check_encoded` does."""
        executor = import_executor("LocalPipelineExecutor")
        num_cpus = os.cpu_count() or 1
        num_at_once = min(self.num_tasks, num_cpus)
        step = _QuietShare(job.config, job.folder, sets=job.sets, num_threads=max(num_cpus // num_at_once, 1))
        with _encoding(job, lock, f"{self.num_tasks} local tasks"):
            executor(
                [step],
                tasks=self.num_tasks,
                workers=num_at_once,
                logging_dir=str(_logs(job.folder)),
                start_method="spawn",  # so that a task is a child of this process, and notices its end
                skip_completed=False,  # the store's own markers say what is done
            ).run()


@dataclass(frozen=True)
class RayTasks:
    """``num_tasks`` tasks in datatrove's RayPipelineExecutor.

    On the cluster that this process is connected to, else on the one that RAY_ADDRESS names or that runs on this
    machine, else on one that is started here and ended afterwards.
    """

    num_tasks: int
    cpus_per_task: int = 1
    gigabytes_per_cpu: float = 2.0

    def __post_init__(self) -> None:
        import_executor("RayPipelineExecutor")
        _import_ray()

    def __call__(self, job: Job, tokenizer: CorpusTokenizer, lock: FolderLock) -> None:
        """Encode what is left of ``job``; raises what `check_encoded` does."""
        executor = import_executor("RayPipelineExecutor")
        step = _QuietShare(job.config, job.folder, sets=job.sets, num_threads=self.cpus_per_task)
        with _connected_to_ray(), _encoding(job, lock, f"{self.num_tasks} tasks on Ray"):
            executor(
                [step],
                tasks=self.num_tasks,
                cpus_per_task=self.cpus_per_task,
                mem_per_cpu_gb=self.gigabytes_per_cpu,
                logging_dir=str(_logs(job.folder)),
                skip_completed=False,
            ).run()


def import_executor(name: str) -> Any:
    """One of datatrove's executors.

    Raises:
        InputError: datatrove is not installed.
    """
    try:
        from datatrove import executor
    except ImportError as error:
        raise InputError(f"datatrove cannot be imported ({error}); {install_hint('cluster')}") from error
    return getattr(executor, name)


class _QuietShare(EncodeShare):
    """A share without datatrove's own log lines, in whichever process it arrives: the command line has its own."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._silence()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._silence()

    @staticmethod
    def _silence() -> None:
        from loguru import logger as datatroves

        datatroves.disable("datatrove")


def _logs(folder: Path) -> Path:
    return folder / "work" / "datatrove"


@contextmanager
def _encoding(job: Job, lock: FolderLock, where: str) -> Iterator[None]:
    """Around the tasks: share the lock with them, show how far they are, and check what they did."""
    job.work.forget_failures()
    lock.share()
    logger.info("tokenise: %s units of input files in %s", f"{len(job.left()):,} of {len(job.units):,}", where)
    done = threading.Event()
    watcher = threading.Thread(target=_show_progress, args=(job, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    check_encoded(job)


def _show_progress(job: Job, done: threading.Event) -> None:
    num_finished = 0
    with progress.shown("tokenise", total=len(job.units), unit="units") as advance:
        while not done.wait(POLL_SECONDS):
            before, num_finished = num_finished, job.work.num_finished()
            advance(num_finished - before)
        advance(job.work.num_finished() - num_finished)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError(f"Ray cannot be imported ({error}); {install_hint('cluster')}") from error
    return ray


@contextmanager
def _connected_to_ray() -> Iterator[None]:
    ray = _import_ray()
    if ray.is_initialized():
        yield
        return
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
