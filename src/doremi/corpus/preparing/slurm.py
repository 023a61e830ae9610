"""A preparation as two Slurm jobs, written by datatrove: an array of tasks, and one that puts their work together."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from doremi import files, redaction
from doremi.corpus.config import CorpusConfig, SetConfig
from doremi.corpus.preparing.cluster import import_executor
from doremi.corpus.preparing.job import CheckDomains, Job, begin, config_digest, finished
from doremi.corpus.preparing.tasks import EncodeShare, Finish
from doremi.corpus.storing.lock import full_disk_reported, locked
from doremi.errors import InputError
from doremi.files import checked_json

LOGS = "slurm"  # below the store: scripts and outputs; they outlast the preparation


@dataclass(frozen=True)
class SlurmOptions:
    """What a cluster wants to know of a job."""

    num_tasks: int
    partition: str
    time: str = "24:00:00"
    cpus_per_task: int = 1
    gigabytes_per_cpu: int = 2
    sbatch: Mapping[str, str] = field(default_factory=dict)  # further options, such as account


@dataclass(frozen=True)
class Submission:
    """Two jobs in the queue."""

    encoding_job: str
    finishing_job: str


def submit(
    config: CorpusConfig,
    folder: Path,
    options: SlurmOptions,
    *,
    sets: Sequence[SetConfig] = (),
    check_domains: CheckDomains | None = None,
) -> Submission | None:
    """Plan a preparation here, tokenizer included, and submit the rest; None where the store is finished.

    The folder must lie on storage that all nodes share. An interrupted preparation goes on when it is submitted again.

    Raises:
        MissingFileError, InputError: as `doremi.corpus.prepare`; or there is no sbatch, or the jobs of an earlier call
            are still in the queue.
    """
    folder = folder.absolute()
    if shutil.which("sbatch") is None:
        raise InputError("--executor slurm: no sbatch on this machine; run this on a login node of a Slurm cluster")
    for key, sections in {"corpus": [config], "evaluation.sets": sets}.items():
        for section in sections:
            redaction.refuse_in_jobs({key: section.model_dump(mode="json")})
    import_executor("SlurmPipelineExecutor")
    with locked(folder), full_disk_reported(folder):
        if finished(folder, config_digest(config, sets), config) is not None:
            return None
        _check_queue(folder)
        job = Job.of(config, folder, sets=sets, check_domains=check_domains)
        begin(job)
        job.work.forget_failures()
        return _submit(job, options)


def _submit(job: Job, options: SlurmOptions) -> Submission:
    executor = import_executor("SlurmPipelineExecutor")

    class Array(executor):  # type: ignore[misc, valid-type]
        """Without datatrove's third job, which would add up statistics that we have none of."""

        def launch_merge_stats(self) -> None:
            pass

    common = {
        "partition": options.partition,
        "time": options.time,
        "cpus_per_task": options.cpus_per_task,
        "mem_per_cpu_gb": options.gigabytes_per_cpu,
        "qos": "",  # the cluster's own default
        "sbatch_args": dict(options.sbatch),
        "env_command": f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        "skip_completed": False,  # the store's own markers say what is done
    }
    share = EncodeShare(job.config, job.folder, sets=job.sets, num_threads=options.cpus_per_task)
    encode = Array(
        [share],
        tasks=options.num_tasks,
        job_name="doremi-encode",
        logging_dir=str(job.folder / LOGS / "encode"),
        **common,
    )
    encode.run()
    last = Array(
        [Finish(job.config, job.folder, sets=job.sets)],
        tasks=1,
        job_name="doremi-finish",
        logging_dir=str(job.folder / LOGS / "finish"),
        depends_job_id=encode.job_id,
        run_on_dependency_fail=True,  # it says which task failed, and why
        **common,
    )
    last.run()
    submission = Submission(encode.job_id, last.job_id)
    files.write_json(_record(job.folder), dict(vars(submission)))
    return submission


def _record(folder: Path) -> Path:
    return folder / "work" / "slurm.json"


def _check_queue(folder: Path) -> None:
    """Two arrays at once would write the same files."""
    if not _record(folder).is_file():
        return
    record = checked_json.read(
        _record(folder), dict[str, str], remedy="delete the file once none of its jobs is queued"
    )
    jobs = ",".join(record.values())
    queue = subprocess.run(["squeue", "--noheader", "--jobs", jobs], capture_output=True, text=True, check=False)
    if queue.stdout.strip():  # a job that Slurm has forgotten is an error there, and nothing here
        raise InputError(
            f"{folder}: being prepared by Slurm jobs {jobs}; wait for them (squeue --jobs {jobs}), or end them "
            f"(scancel {jobs.replace(',', ' ')}) and run this again: what is finished is kept"
        )
