"""A process that imports the package once and runs each command line in a child that it forks.

One request a line on stdin: ``{"arguments": [...], "folder": working directory}``; one answer a line on stdout. A child
has its own memory, signals, modules and streams, so that no command line can disturb the next one, and costs
milliseconds instead of an interpreter's start.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import sys
import traceback
from pathlib import Path

SECONDS = 30
MEGABYTES = 1000  # resident, what the imports took included
SPARE_BYTES = 2 << 30  # of address space beyond the imports': the net under what is measured


def main():
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import_everything()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(run(request["arguments"], Path(request["folder"]))) + "\n")
        answers.flush()


def import_everything():
    import doremi

    for module in pkgutil.walk_packages(doremi.__path__, "doremi."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("datasets", "pyarrow.parquet", "transformers.models.llama.modeling_llama", "lm_eval.tasks"):
        importlib.import_module(name)
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Trainer  # noqa: F401 (lazy until named)


def run(arguments, folder):
    """Exit code, streams and peak of one command line."""
    pid = os.fork()
    if pid == 0:
        child(arguments, folder)
    timed_out = not select.select([descriptor := os.pidfd_open(pid)], [], [], SECONDS)[0]
    os.close(descriptor)
    if timed_out:
        os.killpg(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "stdout": (folder / "stdout").read_bytes().decode(errors="surrogateescape"),
        "stderr": (folder / "stderr").read_bytes().decode(errors="surrogateescape"),
        "megabytes": usage.ru_maxrss / 1000,
        "seconds": usage.ru_utime + usage.ru_stime,
        "timed_out": timed_out,
    }


def child(arguments, folder):
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        sys.path.insert(0, str(folder))  # for readers
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        address_space = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (address_space + SPARE_BYTES,) * 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
        code = command(arguments)
    except BaseException:  # noqa: BLE001 (as an interpreter ends)
        traceback.print_exc(file=sys.stderr)
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def command(arguments):
    from doremi.cli import main as cli

    try:
        return cli.main([os.fsdecode(argument.encode("utf-8", "surrogateescape")) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


if __name__ == "__main__":
    main()
