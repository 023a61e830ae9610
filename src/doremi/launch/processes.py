"""Several processes: how they are started, and how those that have nothing to do wait for the first one.

Only the environment that torchrun sets is read here. What precedes the first training (preparing a corpus may take
hours) and what follows the last one is done by the first process alone, while there is no process group to time out.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from doremi.errors import InputError, RunFailedError
from doremi.launch.interruption import INTERRUPTED
from doremi.redaction import redact
from doremi.text import visible

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # of prctl(2)
POLL_SECONDS = 0.2
NOTICE_SECONDS = 600.0  # after which a process of another node wonders whether the storage is shared
HOLD_BACK_SECONDS = 3.0  # torchrun looks for failed processes ten times a second


def rank() -> int:
    """Index of this process among those that were started together; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes that were started together, whether or not they have met yet; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the process that does what is to be done once."""
    return rank() == 0


def prefix() -> str:
    """What the messages of a process begin with: nothing for the first one."""
    return "" if is_first() else f"[process {rank()}] "


def is_launched() -> bool:
    """Whether torchrun, or something that sets the same environment, started this process."""
    return "LOCAL_RANK" in os.environ


def use_processes(num_processes: int | None, arguments: Sequence[str]) -> None:
    """See to it that ``num_processes`` (None: any number) run ``doremi`` with these arguments on this machine.

    Does not return where that takes more of them: this process starts them as torchrun does, waits for them, and exits
    as they do.

    Raises:
        InputError: torchrun started another number, or the launcher started fewer than it was asked for.
        RunFailedError: a process was killed.
    """
    _check_launcher()
    if is_launched():
        _end_with_parent()
    if num_processes is None:
        return
    if num_processes < 1:
        raise InputError(f"--nproc {num_processes}: at least 1")
    if is_launched():
        started = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if started != num_processes:
            raise InputError(
                f"--nproc {num_processes}: but torchrun started {started} on this machine; leave --nproc out, or "
                "leave torchrun out"
            )
    elif num_processes > 1:
        sys.exit(_run_torchrun(num_processes, arguments))


def _run_torchrun(num_processes: int, arguments: Sequence[str]) -> int:
    """``torchrun`` within this process, without its traceback; the exit code of the process that failed first."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // num_processes, 1)))
    options = ["--standalone", f"--nproc-per-node={num_processes}", "-m"]
    try:
        run.main([*options, "--", "doremi", *arguments])  # without -- it takes our --nproc for its --nproc-per-node
    except ChildFailedError as error:
        index, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode  # the process has said why
        ended_by = signal.Signals(-failure.exitcode).name
        raise RunFailedError(f"process {index} was ended by {ended_by}; the same command continues") from None
    except SignalException:
        return INTERRUPTED
    return 0


def _end_with_parent() -> None:
    """Be killed when torchrun is, on Linux: left behind, this process would train on beside those of the next run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _check_launcher() -> None:
    """``accelerate launch --cpu --num_processes 2`` (accelerate 1.15) silently starts one process.

    It gives that process the address of a meeting point, which it does only for several, and no rank.
    """
    if "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ and not is_launched():
        raise InputError(
            "accelerate launch was asked for several processes and started one, as it does on CPU; start with --nproc "
            "N, or with torchrun --nproc-per-node=N -m doremi"
        )


def wait_for(is_done: Callable[[], bool], what: str) -> None:
    """Return once the first process has done something, in a second or in hours; it is done when ``is_done()``.

    By polling and not at a barrier, which times out; torchrun ends this process if the first one fails. On another
    node, a notice says ``what`` is waited for.
    """
    notice_at = time.monotonic() + NOTICE_SECONDS if _speaks_for_another_node() else math.inf
    while not is_done():
        if time.monotonic() > notice_at:
            notice_at = math.inf
            # an error to the log: the others' warnings are those of the first process once more, and not shown
            logger.error("still waiting for %s, made by process 0: do all nodes share that storage?", what)
        time.sleep(POLL_SECONDS)


def _speaks_for_another_node() -> bool:
    return int(os.environ.get("GROUP_RANK", "0")) > 0 and os.environ.get("LOCAL_RANK") == "0"


def fail(exit_code: int, message: str) -> int:
    """Say on stderr why this process ends; returns the exit code.

    The first of several processes speaks first: where all fail alike, torchrun ends the others while they wait, and the
    message appears once. An interruption reaches all of them, and is told by the first one alone.
    """
    if is_first() or exit_code != INTERRUPTED:
        _let_the_first_speak()
        print(f"{prefix()}doremi: {visible(redact(message), keep=chr(10))}", file=sys.stderr, flush=True)
    return exit_code


def exit_process(exit_code: int) -> NoReturn:
    """End this process; one of several without taking down what is left of a process group.

    A failing one would wait for the others, or break their calls. And threads of a group that something still refers to
    abort an interpreter that is about to exit, once in about 20 times. One that was interrupted would forget
    its handlers on the way out, and be ended by the second of two signals.
    """
    if world_size() == 1 and exit_code != INTERRUPTED:
        sys.exit(exit_code)
    atexit._run_exitfuncs()  # what trackers do at the end
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _let_the_first_speak() -> None:
    if not is_first():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(HOLD_BACK_SECONDS)
