"""The job script: what it submits in which order, with names and paths that try to break out of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from doremi import slurm
from doremi.cli.main import main
from doremi.errors import InputError
from doremi.experiment import recipe as recipes
from doremi.experiment.run_directory import RunDirectory
from tests.slurm.conftest import submit, submitted

HOSTILE = "a b'c\"$(touch pwned)`touch pwned`;touch pwned;%j\\"


def write(recipe_file, out, *overrides, num_nodes=4):
    return slurm.write(recipes.load(recipe_file, overrides), out, num_nodes=num_nodes)


def graph(cluster):
    """{stage and argument: (options, stages that it waits for)}."""
    jobs = submitted(cluster)
    stage_of = {job.number: " ".join(job.stage) for job in jobs}
    found = {}
    for job in jobs:
        waits = set()
        for condition in filter(None, job.options.get("dependency", "").split(",")):
            kind, *numbers = condition.split(":")
            waits |= {(kind, stage_of[number]) for number in numbers}
        found[stage_of[job.number]] = (job.options, waits)
    return found


def test_stages_in_their_order(cluster, recipe, tmp_path):
    script = write(recipe, tmp_path / "out", "training.overrides={main: {steps: 40}}",
                   "methods=[natural, uniform, doremi, {temperature: 2}, reference_without_floor]",
                   "training.global_batch_size=96")  # fmt: skip
    done = submit(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "submitted: 100,101,102,103,104,105,106,107,108,109\n"
    waits = {stage: waits for stage, (_, waits) in graph(cluster).items()}
    assert waits == {
        "plan": set(),
        "encode": {("afterok", "plan")},
        "finish": {("afterok", "plan"), ("afterany", "encode")},
        "search": {("afterok", "finish")},
        "train natural": {("afterok", "finish")},
        "train uniform": {("afterany", "train natural")},
        "train temperature(2)": {("afterany", "train uniform")},
        "train doremi": {("afterany", "train temperature(2)"), ("afterok", "search")},
        "train reference_without_floor": {("afterany", "train doremi"), ("afterok", "search")},
        "evaluate": {("afterany", "train reference_without_floor"), ("afterok", "search")},
    }
    assert all(options.get("kill-on-invalid-dep") == "yes" for options, waits in graph(cluster).values() if waits)


def waits(cluster, recipe, out, *overrides):
    assert submit(write(recipe, out, "training.global_batch_size=96", *overrides)).returncode == 0
    return {stage: waits for stage, (_, waits) in graph(cluster).items()}


LONGER = "training.overrides={main: {steps: 40}}"


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        (["methods=[natural, uniform]"], {"plan", "encode", "finish", "train natural", "train uniform", "evaluate"}),
        (["methods=[doremi]"], {"plan", "encode", "finish", "search", "train doremi", "evaluate"}),
        (["corpus={store: x, tokenizer: {path: y}}", "methods=[natural]"], {"finish", "train natural", "evaluate"}),
    ],
)
def test_stages_that_there_is_nothing_to_do_for(
    cluster, recipe, tmp_path, trained_model, monkeypatch, overrides, stages
):
    monkeypatch.chdir(trained_model.parent)
    assert set(waits(cluster, recipe, tmp_path / "out", *overrides)) == stages


@pytest.mark.parametrize(
    ("overrides", "first"),
    [
        ([LONGER], "finish"),
        ([], "search"),  # its reference may be the very model that verifies natural weights
        (["models.reference={path: y, init: trained}"], "finish"),  # the proxies have a policy
        ([LONGER, "verify.size=proxy"], "search"),
    ],
)
def test_what_may_share_models_is_not_trained_at_once(
    cluster, recipe, tmp_path, trained_model, monkeypatch, overrides, first
):
    monkeypatch.chdir(trained_model.parent)
    found = waits(cluster, recipe, tmp_path / "out", "methods=[doremi, natural]", *overrides)
    assert found["train natural"] == {("afterok", first)}
    assert found["train doremi"] == {("afterany", "train natural"), ("afterok", "search")}
    assert found["evaluate"] == {("afterany", "train doremi"), ("afterok", "search")}


def test_options(cluster, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cluster_section = {
        "partition": "gpu", "account": "mine", "time": "4:00:00", "gpus_per_node": 2, "cpus_per_node": 24,
        "prepare_partition": "cpu", "prepare_tasks": 5, "prepare_cpus": 3, "grace_seconds": 120,
        "sbatch": {"qos": "high", "exclusive": ""}, "cache": "cache dir", "set_up": ["module load cuda"],
    }  # fmt: skip
    script = write(recipe, Path("out"), f"cluster={yaml.safe_dump(cluster_section, default_flow_style=True)}",
                   num_nodes=3)  # fmt: skip
    assert submit(script).returncode == 0
    options = {stage: options for stage, (options, _) in graph(cluster).items()}
    for found in options.values():
        assert found["time"] == "4:00:00"
        assert (found["account"], found["qos"], found["exclusive"]) == ("mine", "high", "")
        assert found["chdir"] == str(tmp_path)
        assert found["output"] == f"{tmp_path}/out/slurm/%x-%j.log"
        assert (found["signal"], found["requeue"], found["open-mode"]) == ("B:USR1@120", "", "append")
    train, evaluate, encode = options["search"], options["evaluate"], options["encode"]
    assert (train["nodes"], train["gpus-per-node"], train["cpus-per-task"]) == ("3", "2", "24")
    assert (train["ntasks-per-node"], train["partition"], train["job-name"]) == ("1", "gpu", "doremi-search")
    assert options["train natural"]["job-name"] == "doremi-verify"
    assert options["train natural"]["nodes"] == "3"
    assert (evaluate["nodes"], evaluate["gpus-per-node"]) == ("1", "1")
    assert (encode["partition"], encode["array"], encode["cpus-per-task"], encode["nodes"]) == ("cpu", "0-4", "3", "1")
    assert "gpus-per-node" not in encode
    assert not [job for job in submitted(cluster) if job.script != str(script)]
    text = script.read_text()
    assert f"export HF_HOME='{tmp_path}/cache dir/huggingface'" in text
    assert "\n    module load cuda\n" in text


def test_names_and_paths_stay_what_they_are(cluster, recipe, tmp_path):
    weights = tmp_path / f"{HOSTILE.replace('/', '')}.json"
    weights.write_text('{"prose": 1, "code": 1, "junk": 1}')
    out = tmp_path / HOSTILE
    section = {"partition": HOSTILE, "account": HOSTILE, "sbatch": {"comment": HOSTILE}}
    script = write(recipe, out, f"cluster={yaml.safe_dump(section, default_flow_style=True, width=10**6)}",
                   f"methods={yaml.safe_dump([{'file': str(weights)}], default_flow_style=True, width=10**6)}",
                   "training.global_batch_size=32")  # fmt: skip
    done = submit(script)
    assert done.returncode == 0, done.stderr
    found = graph(cluster)
    options, _ = found[f"train {weights.stem}"]
    assert options["partition"] == options["account"] == options["comment"] == HOSTILE
    assert options["output"] == f"{str(out).replace('%', '%%')}/slurm/%x-%j.log"
    assert submitted(cluster)[0].script == str(script)
    assert not [*tmp_path.rglob("pwned"), *Path.cwd().glob("pwned")]


def test_what_is_queued_is_not_submitted_again(cluster, recipe, tmp_path):
    script = write(recipe, tmp_path / "out", "training.global_batch_size=96")
    assert submit(script).returncode == 0
    (cluster / "queue").write_text("100 gpu doremi-search PD\n")
    refused = submit(script)
    assert refused.returncode == 2
    assert "out are still in the queue: wait (squeue --jobs=100,101," in refused.stderr
    assert "(scancel 100 101 " in refused.stderr
    (cluster / "queue").unlink()  # Slurm has forgotten them
    assert "submitted: 108," in submit(script).stdout


@pytest.mark.parametrize("number", [100, 101, 102, 105])
def test_a_refusal_of_sbatch_ends_the_submission(cluster, recipe, tmp_path, number):
    script = write(recipe, tmp_path / "out", "training.global_batch_size=96")
    stub = tmp_path / "slurm-commands" / "sbatch"
    stub.write_text(stub.read_text().replace("\necho", f'\n[ "$number" -lt {number} ] || exit 1\necho'))
    done = submit(script)
    assert done.returncode == 1
    assert "submitted" not in done.stdout
    assert len(submitted(cluster)) == number - 99


@pytest.mark.parametrize("tool", [["bash", "-n"], ["shellcheck", "--shell=bash", "--exclude=SC1091"]])
def test_syntax(recipe, tmp_path, tool):
    if shutil.which(tool[0]) is None:
        pytest.skip(f"no {tool[0]} here")
    script = write(recipe, tmp_path / "out", "training.global_batch_size=96")
    checked = subprocess.run([*tool, str(script)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_command_line(cluster, recipe, tmp_path, capsys):
    out = tmp_path / "my run"
    flags = ["--out", str(out), "--set", "training.global_batch_size=96", "--slurm", "2"]
    assert main(["run", str(recipe), *flags]) == 0
    assert f"submit   bash '{out}/slurm/pipeline.sh'" in capsys.readouterr().out
    assert not submitted(cluster)
    assert RunDirectory(out).recipe.is_file()
    assert not (out / "corpus").exists()
    assert main(["run", str(recipe), *flags[:-1], "0"]) == 2
    assert "--slurm 0: at least 1 node" in capsys.readouterr().err


def test_a_batch_that_the_nodes_cannot_share(recipe, tmp_path):
    with pytest.raises(InputError, match=r"training\.global_batch_size is 6, not a multiple of the 32 processes"):
        write(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_cluster_may_change_while_the_run_goes_on(recipe, tmp_path):
    directory = RunDirectory(tmp_path / "out")
    first = recipes.load(recipe)
    directory.claim(first)
    (directory.root / "runs").mkdir()
    elsewhere = recipes.load(recipe, ["cluster={partition: other, sbatch: {qos: high}}"])
    directory.claim(elsewhere)
    assert elsewhere.digest == first.digest
    assert yaml.safe_load(directory.recipe.read_text())["cluster"]["partition"] == "other"
    with pytest.raises(InputError, match=r"training\.steps differs"):
        directory.claim(recipes.load(recipe, ["training.steps=9", "cluster={partition: other}"]))
