"""A Slurm that is a few lines of shell: what is submitted is kept, and nodes are processes of this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from doremi.corpus.tokenizing import tokenizers
from tests.end_to_end.conftest import write_corpus, write_recipe
from tests.processes import put_commands_on_path

COMMANDS = {
    # one argument a line, numbered from 100; quoting mistakes would show
    "sbatch": """#!/bin/bash
number=$((100 + $(ls "$SLURM_STUB" | grep -c '[.]arguments$')))
printf '%s\\0' "$@" > "$SLURM_STUB/$number.arguments"
echo "$number;cluster"
""",
    "squeue": '#!/bin/bash\ncat "$SLURM_STUB/queue" 2> /dev/null || exit 1\n',
    "scontrol": """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; echo 127.0.0.1; else echo "$@" >> "$SLURM_STUB/scontrol"; fi
""",
    # runs the command once for each node, hands SIGTERM on as srun does, and fails as its tasks do
    "srun": """#!/bin/bash
printf '%s\\n' "$@" > "$SLURM_STUB/srun"
while [ "${1#--}" != "$1" ]; do shift; done
tasks=()
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
    SLURM_NODEID=$node "$@" &
    tasks+=($!)
done
trap 'kill -TERM "${tasks[@]}"' TERM
status=0
for task in "${tasks[@]}"; do
    while kill -0 "$task" 2> /dev/null; do wait "$task"; done
    wait "$task" || status=$?
done
exit "$status"
""",
}


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """A folder with what was submitted; the commands are on the PATH."""
    return put_commands_on_path(tmp_path, monkeypatch, COMMANDS)


@pytest.fixture
def recipe(tmp_path) -> Path:
    write_corpus(tmp_path)
    return write_recipe(tmp_path)


@pytest.fixture
def trained_model(tmp_path) -> Path:
    """A tiny model with its tokenizer, in a folder called y: what a recipe names is looked at early."""
    folder = tmp_path / "y"
    LlamaForCausalLM(
        LlamaConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            vocab_size=300,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).save_pretrained(folder)
    tokenizers.train(["the a of and"], vocab_size=300).save(folder)
    return folder


class Job:
    """One call of sbatch."""

    def __init__(self, path: Path) -> None:
        arguments = path.read_bytes().decode().split("\0")[:-1]
        split = next(index for index, value in enumerate(arguments) if not value.startswith("--"))
        self.number = path.stem
        self.script, *self.stage = arguments[split:]
        self.options = dict(option[2:].partition("=")[::2] for option in arguments[:split])


def submit(script: Path) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)


def submitted(cluster: Path) -> list[Job]:
    return [Job(path) for path in sorted(cluster.glob("*.arguments"))]


def node_environment(*, num_nodes: int = 1, job: int = 7, **changes: str) -> dict[str, str]:
    return {**os.environ, "SLURM_JOB_ID": str(job), "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": str(num_nodes), **changes}  # fmt: skip


def run_stage(script: Path, *stage: str, **environment: str) -> subprocess.CompletedProcess:
    """What the queue does with a job, on one node."""
    return subprocess.run(
        ["bash", str(script), *stage],
        env=node_environment(**environment), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
