"""What the queue runs: preparing in an array of jobs, training on nodes that meet, and going on after a time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from doremi import files, slurm
from doremi.corpus import TokenStore, prepare
from doremi.experiment import recipe as recipes
from doremi.slurm import tasks
from tests.slurm.conftest import node_environment, run_stage

TINY = ["training.global_batch_size=6", "cluster={gpus_per_node: 0, prepare_tasks: 2, grace_seconds: 60}",
        "training.steps=40", "training.save_steps=1000", "weights.baselines=[]"]  # fmt: skip


def write(recipe, out, *overrides):
    return slurm.write(recipes.load(recipe, [*TINY, *overrides]), out, num_nodes=2)


@pytest.fixture
def on_a_node(monkeypatch):
    """One task of an array, in this process."""

    def run(step, out, *, task=0, num_tasks=1):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", str(num_tasks))
        return tasks.main([step, str(out)])

    return run


def test_preparing_in_an_array_gives_the_store_of_one_machine(on_a_node, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("doremi.corpus.preparing.work.UNIT_BYTES", 0)  # every file is a unit of its own
    lines = (tmp_path / "corpus.jsonl").read_text().splitlines()
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / f"{number}.jsonl").write_text("\n".join(lines[number::5]))
    (tmp_path / "client.jsonl").write_text("\n".join(lines[:3]))
    changes = [
        f"corpus.inputs=[{{path: {tmp_path}/in, domain_field: meta.domain}}]",
        f"evaluation.sets=[{{name: client, path: {tmp_path}/client.jsonl}}]",
    ]
    out = tmp_path / "out"
    write(recipe, out, *changes)
    assert on_a_node("plan", out) == 0
    assert (out / "corpus" / "tokenizer" / "tokenizer.json").is_file()  # trained once, here
    for task, finished in ((1, {1, 3, 5}), (0, {0, 1, 2, 3, 4, 5})):
        assert on_a_node("encode", out, task=task, num_tasks=2) == 0
        found = {int(path.stem) for path in (out / "corpus" / "work" / "finished").glob("*.json")}
        assert found == finished
    assert on_a_node("finish", out) == 0
    loaded = recipes.load(recipe, changes)
    here = prepare(loaded.corpus, tmp_path / "here", sets=loaded.evaluation.sets)
    assert TokenStore.open(out / "corpus").digest == here.digest
    assert here.sets == ("client",)
    for step in ("plan", "encode", "finish"):  # once more: there is nothing to do
        assert on_a_node(step, out) == 0
    assert not (out / "corpus" / "work").exists()


def test_what_a_preparing_job_says(on_a_node, recipe, tmp_path, capsys):
    out = tmp_path / "out"
    write(recipe, out)
    assert on_a_node("plan", out) == 0
    with pytest.raises(SystemExit, match="1"):
        on_a_node("finish", out)
    assert "1 of 1 input files were not encoded" in capsys.readouterr().err
    write(recipe, tmp_path / "other", "corpus.inputs=[{path: nowhere.jsonl, domain: a}]")
    assert on_a_node("plan", tmp_path / "other") == 2
    assert "doremi: nowhere.jsonl: no such file" in capsys.readouterr().err


def test_a_failed_task_is_tried_again(on_a_node, recipe, tmp_path, capsys):
    out = tmp_path / "out"
    write(recipe, out)
    assert on_a_node("plan", out) == 0
    corpus = tmp_path / "corpus.jsonl"
    text, changed = corpus.read_text(), corpus.stat().st_mtime_ns
    corpus.write_text(f"{text}x")
    assert on_a_node("encode", out) == 0  # what went wrong is left for the last job
    with pytest.raises(SystemExit, match="2"):
        on_a_node("finish", out)
    assert "sees other inputs" in capsys.readouterr().err
    corpus.write_text(text)
    os.utime(corpus, ns=(changed, changed))
    assert [on_a_node(step, out) for step in ("plan", "encode", "finish")] == [0, 0, 0]


def python_that(tmp_path, script):
    """Lines of a recipe's set-up after which ``python`` is a few lines of shell."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f"#!/bin/bash\n{script}\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    return f"export PATH={tmp_path}/bin:$PATH"


def with_cluster(recipe, out, **section):
    return write(recipe, out, f"cluster={json.dumps({'gpus_per_node': 0} | section)}")


def test_commands_of_the_preparing_jobs(cluster, recipe, tmp_path, trained_model):
    out = tmp_path / "out"
    script = with_cluster(recipe, out, set_up=[python_that(tmp_path, 'echo "$@"')])
    assert run_stage(script, "encode").stdout == f"-m doremi.slurm.tasks encode {out}\n"
    prepare_and_check = [f"-m doremi.slurm.tasks finish {out}", f"-m doremi prepare {out}/recipe.yaml --out {out}"]
    assert run_stage(script, "finish").stdout.splitlines() == prepare_and_check
    unknown = run_stage(script, "nope")
    assert (unknown.returncode, unknown.stderr) == (2, "doremi: no stage nope\n")
    section = json.dumps({"gpus_per_node": 0, "set_up": [f"PATH={tmp_path}/bin:$PATH"]})
    in_place = write(
        recipe, tmp_path / "x", f"corpus={{store: x, tokenizer: {{path: {trained_model}}}}}", f"cluster={section}"
    )
    assert len(run_stage(in_place, "finish").stdout.splitlines()) == 1  # a store that is read in place


def test_what_the_recipe_sets_up_comes_first(cluster, recipe, tmp_path):
    """Its lines are run as they are, where unset variables and failing commands are of no consequence."""
    out = tmp_path / "out"
    lines = ["false", 'export MINE="$NOT_SET yes"', python_that(tmp_path, 'echo "$HF_HOME|$MINE|$@"')]
    script = with_cluster(recipe, out, set_up=lines, cache=f"{tmp_path}/cache")
    assert run_stage(script, "evaluate").stdout.splitlines() == [
        f"{tmp_path}/cache/huggingface| yes|-m doremi evaluate {out}/recipe.yaml --out {out}",
        f"{tmp_path}/cache/huggingface| yes|-m doremi report {out}",
    ]


def test_a_torchrun_on_each_node(cluster, recipe, tmp_path):
    out = tmp_path / "out"
    set_up = [python_that(tmp_path, 'echo "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT $@"')]
    script = with_cluster(recipe, out, gpus_per_node=3, set_up=set_up, grace_seconds=200)
    done = run_stage(script, "train", "my weights", job=123456, num_nodes=2)
    assert done.returncode == 0, done.stderr
    common = "170 -m torch.distributed.run --nnodes=2 --node-rank={} --master-addr=127.0.0.1 --master-port=23456"
    tail = f"--nproc-per-node=3 -m -- doremi train {out}/recipe.yaml --out {out} --run my weights"
    assert sorted(done.stdout.splitlines()) == [f"{common.format(node)} {tail}" for node in (0, 1)]
    options = (cluster / "srun").read_text().splitlines()
    assert {"--ntasks-per-node=1", "--kill-on-bad-exit=0", "--wait=200"} <= set(options)


def test_the_first_node_is_not_known(cluster, recipe, tmp_path):
    (tmp_path / "slurm-commands" / "scontrol").write_text("#!/bin/bash\nexit 1\n")
    done = run_stage(write(recipe, tmp_path / "out"), "train", "main")
    assert (done.returncode, done.stderr) == (1, "doremi: scontrol does not say which nodes job 7 has\n")


@pytest.mark.parametrize("stage", [["plan"], ["train", "main"]])
def test_a_failure_of_its_own_is_no_reason_to_go_on(cluster, recipe, tmp_path, stage):
    script = with_cluster(recipe, tmp_path / "out", set_up=[python_that(tmp_path, "exit 3")])
    assert run_stage(script, *stage).returncode == 3
    assert not (cluster / "scontrol").exists()


@pytest.mark.parametrize("stage", [["plan"], ["train", "main"]])
@pytest.mark.parametrize(("ending", "status", "requeued"), [("exit 0", 0, False), ("exit 130", 130, True)])
def test_when_the_time_is_over(cluster, recipe, tmp_path, stage, ending, status, requeued):
    """Slurm tells the script, which tells the step and waits until it has saved."""
    stopped, stderr = stop_in_the_middle(recipe, tmp_path, stage, f"sleep 0.3; touch {tmp_path}/saved; {ending}")
    assert (tmp_path / "saved").exists()
    assert stopped == status
    assert (cluster / "scontrol").exists() == requeued
    if requeued:
        assert (cluster / "scontrol").read_text() == "requeue 7\n"
        assert "job 7 goes back into the queue" in stderr


def test_a_cluster_that_puts_no_job_back(cluster, recipe, tmp_path):
    (tmp_path / "slurm-commands" / "scontrol").write_text("#!/bin/bash\nexit 1\n")
    stopped, stderr = stop_in_the_middle(recipe, tmp_path, ["plan"], "exit 130")
    assert stopped == 130  # what depends on it does not begin
    assert rf"may not be put back here; bash {tmp_path}/a\ b/slurm/pipeline.sh continues" in stderr


def stop_in_the_middle(recipe, tmp_path, stage, on_term):
    """What a job ends with whose step does ``on_term`` at SIGTERM: its status and what it said."""
    python = f'trap "{on_term}" TERM\ntouch {tmp_path}/began\nwhile :; do sleep 0.05; done'
    script = with_cluster(recipe, tmp_path / "a b", set_up=[python_that(tmp_path, python)])
    job = subprocess.Popen(["bash", str(script), *stage], env=node_environment(), stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "began", job)
    job.send_signal(signal.SIGUSR1)
    _, stderr = job.communicate(timeout=60)
    return job.returncode, stderr


@pytest.mark.slow
def test_two_nodes_interrupted_and_continued(cluster, recipe, tmp_path):
    """Real processes: torchrun twice, a time limit in the middle of the training, and the same job once more."""
    script, out = write(recipe, tmp_path / "out", "training.steps=60", "training.save_steps=2"), tmp_path / "out"
    prepare(recipes.load(recipe).corpus, out / "corpus")
    command, environment = ["bash", str(script), "train", "reference"], node_environment(num_nodes=2, job=40)
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        run = out / "rounds" / "01" / "reference"
        wait_for(run / "checkpoint-2" / "complete.json", job)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(timeout=120) == 130, (tmp_path / "log").read_text()
    assert (cluster / "scontrol").read_text() == "requeue 40\n"
    assert files.read_marker(run) is None
    newest = max(int(path.parent.name.removeprefix("checkpoint-")) for path in run.glob("checkpoint-*/complete.json"))
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0, again.stderr
    assert f"continuing from step {newest} " in again.stderr
    assert files.read_marker(run)["steps"] == 60


def wait_for(path: Path, job: subprocess.Popen) -> None:
    for _ in range(6000):
        if path.exists():
            return
        assert job.poll() is None, job.returncode
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")
