"""The Slurm path up to the job scripts, which are then run by a Slurm that is a few lines of shell."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from doremi.corpus import TokenStore, prepare
from doremi.corpus.config import CorpusConfig
from doremi.corpus.preparing.job import Job, begin
from doremi.corpus.preparing.units import Encoder
from doremi.errors import InputError
from tests.processes import put_commands_on_path

pytest.importorskip("datatrove")

from doremi.corpus.preparing.slurm import LOGS, SlurmOptions, Submission, submit

OPTIONS = SlurmOptions(2, partition="cpu", time="1:00:00", cpus_per_task=3, sbatch={"account": "mine"})
SBATCH = """#!/bin/sh
number=$(ls "$SLURM_STUB"/*.script 2>/dev/null | wc -l)
for last; do :; done
cp "$last" "$SLURM_STUB/$number.script"
echo "$@" > "$SLURM_STUB/$number.arguments"
echo "Submitted batch job $((100 + number))"
"""
SQUEUE = """#!/bin/sh
cat "$SLURM_STUB/queue" 2>/dev/null || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
"""
SRUN = """#!/bin/sh
while [ "${1#-}" != "$1" ] || [ "$1" -eq "$1" ] 2>/dev/null; do shift; done
exec "$@"
"""
SCONTROL = "#!/bin/sh\necho node1\n"


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """A folder with the scripts that were submitted; sbatch, squeue, srun and scontrol are on the PATH."""
    scripts = {"sbatch": SBATCH, "squeue": SQUEUE, "srun": SRUN, "scontrol": SCONTROL}
    return put_commands_on_path(tmp_path, monkeypatch, scripts)


@pytest.fixture
def config(write_jsonl, tmp_path) -> CorpusConfig:
    for number in range(4):
        write_jsonl(f"in/{number}.jsonl", [{"text": f"{number} {i} abc", "set": "ab"[i % 2]} for i in range(100)])
    return CorpusConfig(inputs=[{"path": str(tmp_path / "in"), "domain_field": "set"}], tokenizer={"vocab_size": 300})


def run_job(cluster: Path, number: int, task: int = 0) -> subprocess.CompletedProcess:
    """Run one task of a submitted script as a node would."""
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_NODELIST": "node1", "RUN_OFFSET": "0"}
    command = ["bash", str(cluster / f"{number}.script")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def directives(cluster: Path, number: int) -> dict[str, str]:
    script = (cluster / f"{number}.script").read_text()
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, flags=re.MULTILINE))


def test_scripts(cluster, config, tmp_path):
    assert submit(config, tmp_path / "out", OPTIONS) == Submission("100", "101")
    encode, last = directives(cluster, 0), directives(cluster, 1)
    assert encode["array"] == "0-1"
    assert last["array"] == "0-0"
    for options in (encode, last):
        assert (options["partition"], options["time"], options["cpus-per-task"]) == ("cpu", "1:00:00", "3")
        assert options["account"] == "mine"
        assert options["mem-per-cpu"] == "2G"
        assert "qos" not in options
        assert Path(options["output"]).is_relative_to(tmp_path / "out" / LOGS)
    assert "--dependency=afterany:100" in (cluster / "1.arguments").read_text()
    assert "dependency" not in (cluster / "0.arguments").read_text()
    assert len(list(cluster.glob("*.script"))) == 2
    assert (tmp_path / "out" / "tokenizer" / "tokenizer.json").is_file()  # trained once, here


def test_domains_are_checked_before_a_job_is_submitted(cluster, config, tmp_path):
    """A mistake in the recipe's names, before the nodes work for hours; mended, the same command goes on."""
    seen = []

    def refuse(names):
        seen.append(sorted(names))
        raise InputError("no such domain")

    with pytest.raises(InputError, match="no such domain"):
        submit(config, tmp_path / "out", OPTIONS, check_domains=refuse)
    assert seen == [["a", "b"]]
    assert list(cluster.glob("*.script")) == []
    assert submit(config, tmp_path / "out", OPTIONS, check_domains=seen.append) == Submission("100", "101")


def test_the_jobs_make_the_store_of_a_local_preparation(cluster, config, tmp_path):
    submit(config, tmp_path / "out", OPTIONS)
    for task in (1, 0):
        done = run_job(cluster, 0, task)
        assert done.returncode == 0, done.stderr
    assert run_job(cluster, 1).returncode == 0
    here = prepare(config, tmp_path / "here")
    assert TokenStore.open(tmp_path / "out").digest == here.digest
    assert not (tmp_path / "out" / "work").exists()
    assert submit(config, tmp_path / "out", OPTIONS) is None
    assert prepare(config, tmp_path / "out").digest == here.digest


def test_the_last_job_says_what_went_wrong(cluster, config, tmp_path):
    path = tmp_path / "in" / "1.jsonl"
    with path.open("a") as file:
        file.write("{bad\n")
    trained = config.model_copy(update={"on_bad_record": "skip"})
    prepare(trained, tmp_path / "trained")
    tokenizer = type(config.tokenizer)(path=str(tmp_path / "trained" / "tokenizer"))
    submit(config.model_copy(update={"tokenizer": tokenizer}), tmp_path / "out", SlurmOptions(1, partition="cpu"))
    assert run_job(cluster, 0).returncode == 0
    last = run_job(cluster, 1)
    assert last.returncode == 2
    assert f"doremi: {path}:101: not valid JSON" in last.stderr
    assert "Traceback" not in last.stderr


def test_what_is_queued_is_not_submitted_again(cluster, config, tmp_path):
    submit(config, tmp_path / "out", OPTIONS)
    (cluster / "queue").write_text("100_[0-1] cpu doremi-e PD\n")
    with pytest.raises(InputError, match=r"out: being prepared by Slurm jobs 100,101; wait .* \(scancel 100 101\)"):
        submit(config, tmp_path / "out", OPTIONS)
    (cluster / "queue").unlink()  # Slurm has forgotten them: they failed
    assert submit(config, tmp_path / "out", OPTIONS) == Submission("102", "103")


def test_a_running_task_keeps_a_local_preparation_out(cluster, config, tmp_path):
    from doremi.corpus.storing.lock import joined

    submit(config, tmp_path / "out", OPTIONS)
    with joined(tmp_path / "out"), pytest.raises(InputError, match="being prepared by process"):
        prepare(config, tmp_path / "out")


def test_no_slurm_here(config, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no sbatch on this machine; run this on a login node"):
        submit(config, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_preparation_that_a_laptop_began_goes_on(cluster, config, tmp_path, monkeypatch):
    """Its tokenizer and the input file that it finished are kept; the jobs do the rest, to the same store."""
    monkeypatch.setattr("doremi.corpus.preparing.work.UNIT_BYTES", 0)  # every file is a unit of its own
    job = Job.of(config, tmp_path / "out")
    Encoder(job.encoder_settings, begin(job)).encode(0, job.units[0])
    begun = times_of_files(tmp_path / "out")
    assert {Path(path).suffix for path in begun} == {".bin", ".idx", ".json"}
    assert submit(config, tmp_path / "out", SlurmOptions(1, partition="cpu")) == Submission("100", "101")
    for number in (0, 1):
        done = run_job(cluster, number)
        assert done.returncode == 0, done.stderr
    ended = times_of_files(tmp_path / "out")
    assert {path: ended.get(path) for path in begun} == begun
    assert TokenStore.open(tmp_path / "out").digest == prepare(config, tmp_path / "here").digest


def times_of_files(store: Path) -> dict[str, int]:
    """When the tokens and the tokenizer of a store were written, by relative path."""
    found = [*store.rglob("*.bin"), *store.rglob("*.idx"), store / "tokenizer" / "tokenizer.json"]
    return {str(path.relative_to(store)): path.stat().st_mtime_ns for path in found}
