"""What is found out from the environment before any process group exists."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from doremi import launch
from doremi.errors import InputError
from doremi.experiment import recipe
from doremi.launch import processes
from doremi.training import arguments, distributed


@pytest.fixture
def environment(monkeypatch):
    """Set variables of the environment, and none of torchrun's besides."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    return lambda **variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


def config(**passed_through):
    content = {"corpus": {"inputs": [{"path": "x"}]}, "training": {"arguments": passed_through}}
    return recipe.parse(content).training


def test_one_process_goes_on_as_it_is(environment):
    launch.use_processes(None, ["run"])
    launch.use_processes(1, ["run"])
    with pytest.raises(InputError, match="--nproc 0: at least 1"):
        launch.use_processes(0, ["run"])


def test_torchrun_started_another_number_than_asked_for(environment, monkeypatch):
    monkeypatch.setattr(processes, "_end_with_parent", lambda: None)
    environment(LOCAL_RANK="0", LOCAL_WORLD_SIZE="2", WORLD_SIZE="4")
    launch.use_processes(2, ["run"])  # of two nodes
    with pytest.raises(InputError, match="--nproc 3: but torchrun started 2 on this machine"):
        launch.use_processes(3, ["run"])


def test_accelerate_launch_on_cpu_starts_one_process_whatever_it_was_asked_for(environment):
    environment(ACCELERATE_USE_CPU="True")
    launch.use_processes(None, ["run"])  # it was asked for one
    environment(MASTER_ADDR="127.0.0.1")
    with pytest.raises(InputError, match=r"asked for several processes and started one.*torchrun --nproc-per-node=N"):
        launch.use_processes(None, ["run"])


def test_fewer_processes_met_than_were_started(environment, tmp_path):
    environment(WORLD_SIZE="2")
    with pytest.raises(InputError, match=r"2 processes were announced \(WORLD_SIZE\), but 1 train together"):
        arguments.training_arguments(config(use_cpu=False), folder=tmp_path, seed=0, name="reference")
    environment(WORLD_SIZE="1")
    distributed.check_all_are_here()


def test_several_gpus_are_not_for_one_process(environment, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    with pytest.raises(InputError, match=r"one process sees 8 GPUs.*--nproc 8.*CUDA_VISIBLE_DEVICES=0"):
        arguments.training_arguments(config(), folder=tmp_path, seed=0, name="reference")
    arguments.check_devices(config(use_cpu=True))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    arguments.check_devices(config())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    environment(LOCAL_RANK="3", WORLD_SIZE="8")
    arguments.check_devices(config())


@pytest.mark.parametrize(
    ("fsdp_config", "message"),
    [
        ({"state_dict_type": "SHARDED_STATE_DICT"}, "state_dict_type is SHARDED_STATE_DICT, which has a pickle"),
        ({"fsdp_state_dict_type": "SHARDED_STATE_DICT"}, "state_dict_type is SHARDED_STATE_DICT"),
        ({"version": 1}, "only FSDP2 is supported"),
    ],
)
def test_what_fsdp_may_not_be_told(environment, fsdp_config, message):
    with pytest.raises(InputError, match=message):
        arguments.check(config(fsdp=True, fsdp_config=fsdp_config))
    arguments.check(config(fsdp=True, fsdp_config={"state_dict_type": "FULL_STATE_DICT", "version": 2}))


def test_adafactor_is_not_for_fsdp(environment):
    with pytest.raises(InputError, match="Adafactor of transformers fails on parameters that FSDP2 has sharded"):
        arguments.check(config(fsdp=True, optim="adafactor"))
    arguments.check(config(optim="adafactor"))


def test_fsdp_options_of_a_file_are_read(environment, tmp_path):
    (tmp_path / "fsdp.json").write_text('{"version": 1}')
    with pytest.raises(InputError, match="only FSDP2 is supported"):
        arguments.check(config(fsdp=True, fsdp_config=str(tmp_path / "fsdp.json")))


def test_fsdp_needs_something_to_shard_over(environment):
    with pytest.raises(InputError, match=r"fsdp: needs several processes.*--nproc N"):
        arguments.check_devices(config(fsdp=True))
    environment(LOCAL_RANK="0", WORLD_SIZE="2")
    arguments.check_devices(config(fsdp=True))


def test_waiting_ends_when_the_thing_is_there(environment, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.01)
    there = tmp_path / "manifest.json"
    threading.Timer(0.1, there.touch).start()
    launch.wait_for(there.exists, "the corpus")
    assert there.exists()


@pytest.mark.parametrize(("group_rank", "local_rank", "notices"), [("0", "1", 0), ("1", "0", 1), ("1", "1", 0)])
def test_another_node_wonders_once_whether_the_storage_is_shared(
    environment, monkeypatch, caplog, group_rank, local_rank, notices
):
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(processes, "NOTICE_SECONDS", 0.01)
    environment(RANK="9", GROUP_RANK=group_rank, LOCAL_RANK=local_rank)
    end = time.monotonic() + 0.1
    launch.wait_for(lambda: time.monotonic() > end, "the corpus in out/corpus")
    assert caplog.text.count("still waiting for the corpus in out/corpus") == notices
