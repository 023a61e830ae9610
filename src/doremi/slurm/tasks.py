"""What the preparing jobs of a pipeline do on a node: ``python -m doremi.slurm.tasks plan|encode|finish RUN_DIR``.

The steps are those of `doremi.corpus.preparing.tasks`, which datatrove runs elsewhere; here Slurm's own array does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from doremi import files
from doremi.corpus.preparing.job import Job, begin, config_digest, finished
from doremi.corpus.preparing.tasks import EncodeShare, Finish
from doremi.corpus.storing.lock import full_disk_reported, locked
from doremi.errors import InputError, RunFailedError
from doremi.experiment import named_domains, recipe
from doremi.experiment.recipe import Recipe
from doremi.experiment.run_directory import RunDirectory
from doremi.launch import INTERRUPTED, console, fail


def main(arguments: Sequence[str]) -> int:
    """Run one step; returns the exit code, those of ``doremi``."""
    step, root = arguments
    directory = RunDirectory(Path(root))
    console.configure_logging()
    try:
        with directory.held(alone=False):
            _run_step(step, recipe.load(directory.recipe), directory.corpus)
    except InputError as error:
        return fail(2, str(error))
    except RunFailedError as error:
        return fail(1, f"the run failed: {error}")
    except OSError as error:
        if not files.is_failed_io(error):
            raise
        return fail(1, f"the run failed: {error}; the same job continues once that is mended")
    except KeyboardInterrupt:
        return fail(INTERRUPTED, "interrupted; the same job continues")
    return 0


def _run_step(step: str, loaded: Recipe, folder: Path) -> None:
    config, sets = loaded.corpus, loaded.evaluation.sets
    if step == "plan":
        plan(loaded, folder)
    elif step == "encode":
        rank, num_tasks = (int(os.environ[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "COUNT"))
        EncodeShare(config, folder, sets=sets, num_threads=_num_cpus())(None, rank, num_tasks)
    else:
        Finish(config, folder, sets=sets)(None, 0, 1)


def plan(loaded: Recipe, folder: Path) -> None:
    """List the inputs, and load or train the tokenizer; nothing to do where the corpus is finished."""
    config, sets = loaded.corpus, loaded.evaluation.sets
    with locked(folder), full_disk_reported(folder):
        if finished(folder, config_digest(config, sets), config) is None:
            job = Job.of(config, folder, sets=sets, check_domains=partial(named_domains.check, loaded))
            begin(job)
            job.work.forget_failures()


def _num_cpus() -> int | None:
    cpus = os.environ.get("SLURM_CPUS_PER_TASK")
    return int(cpus) if cpus else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
