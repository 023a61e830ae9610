"""Checkpoints: only what is whole counts, whatever happens to the disk or to the files."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import trainer as trainer_module

from doremi import files
from doremi.errors import InputError, RunFailedError
from doremi.training import checkpoints, failed_writes
from doremi.training.trainer import STATE_FILE
from tests.processes import files_of_at_most
from tests.training.fakes import parameters
from tests.training.test_trainer import train


def save(run_folder, step, content=b"0123456789" * 1000):
    """A checkpoint of two files, one of them in a sub-folder, as FSDP writes them."""
    folder = checkpoints.path(run_folder, step)
    (folder / "shards").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "shards" / "0.distcp").write_bytes(content[:100])
    checkpoints.complete(folder)
    return folder


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {
    "one bit": (lambda f: flip(f / "model.safetensors", 5000), "model.safetensors has other content than was saved"),
    "last bit": (lambda f: flip(f / "shards/0.distcp", 99), "shards/0.distcp has other content than was saved"),
    "cut": (lambda f: truncate(f / "model.safetensors"), r"model.safetensors has 9,999 bytes, 10,000 were saved"),
    "file gone": (lambda f: (f / "shards/0.distcp").unlink(), "shards/0.distcp is missing"),
    "folder in place": (
        lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()),
        "model.safetensors is missing",
    ),
    "not json": (
        lambda f: (f / files.MARKER).write_text('{"files": {'),
        "complete.json cannot be read .*not valid JSON",
    ),
    "not text": (lambda f: (f / files.MARKER).write_bytes(b"\xff\xfe\x00"), "complete.json cannot be read .*not UTF-8"),
    "empty": (lambda f: (f / files.MARKER).write_text(""), "complete.json cannot be read .*not valid JSON"),
    "list": (lambda f: (f / files.MARKER).write_text("[1]"), "complete.json cannot be read .*expected a JSON object"),
    "null": (lambda f: (f / files.MARKER).write_text("null"), "complete.json cannot be read .*expected a JSON object"),
}
SAYS_NOTHING = [
    {},
    {"files": {}},
    {"files": [1]},
    {"files": None},
    {"sizes": {"model.safetensors": 10000}},
    {"files": {"model.safetensors": 10000}},
    {"files": {"model.safetensors": {"size": 10000}}},
    {"files": {"model.safetensors": {"size": None, "digest": "0"}}},
    {"files": {"model.safetensors": {"size": "many", "digest": "0"}}},
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_that_names_the_file(tmp_path, caplog, damage):
    save(tmp_path, 5)
    newest = save(tmp_path, 10)
    assert checkpoints.newest_complete(tmp_path) == 10
    assert not caplog.text
    inflict, message = DAMAGES[damage]
    inflict(newest)
    assert checkpoints.newest_complete(tmp_path) == 5
    assert f"{newest} is passed over: " in caplog.text
    with pytest.raises(InputError, match=rf"checkpoint-10: this checkpoint cannot be used: {message}"):
        checkpoints.check(newest)


@pytest.mark.parametrize("content", SAYS_NOTHING, ids=json.dumps)
def test_a_marker_that_says_nothing_usable_marks_nothing(tmp_path, content):
    save(tmp_path, 5)
    newest = save(tmp_path, 10)
    files.write_json(newest / files.MARKER, content)
    assert checkpoints.find_damage(newest) == "complete.json does not say what was saved"
    assert checkpoints.newest_complete(tmp_path) == 5


def test_a_file_that_cannot_be_read_is_damage(tmp_path, monkeypatch):
    folder = save(tmp_path, 5)

    def bad_sector(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(files, "digest_file", bad_sector)
    assert checkpoints.find_damage(folder) == f"{folder}/model.safetensors cannot be read (Input/output error)"


def test_what_was_never_saved_to_its_end_is_started_over_but_not_silently(tmp_path, caplog):
    assert checkpoints.newest_complete(tmp_path) == 0
    assert not caplog.text
    (save(tmp_path, 5) / files.MARKER).unlink()
    assert checkpoints.newest_complete(tmp_path) == 0
    assert "checkpoint-5 is passed over: complete.json is missing, it was not saved to its end" in caplog.text
    assert "no checkpoint was saved to its end, starting from step 0" in caplog.text


def test_work_is_not_thrown_away_where_every_checkpoint_is_damaged(tmp_path):
    for step in (5, 10):
        flip(save(tmp_path, step) / "model.safetensors", 0)
    (save(tmp_path, 15) / files.MARKER).unlink()
    with pytest.raises(
        InputError, match=r"none of its checkpoints can be used.*Put back a copy of one, or delete .*/ch"
    ):
        checkpoints.newest_complete(tmp_path)
    assert checkpoints.steps(tmp_path) == [5, 10, 15]


def test_other_folders_are_no_checkpoints(tmp_path):
    for name in ("checkpoint-0", "checkpoint-07", "checkpoint-7a", "xcheckpoint-7", "checkpoint-"):
        (tmp_path / name).mkdir()
    save(tmp_path, 10)
    save(tmp_path, 9)
    assert checkpoints.steps(tmp_path) == [9, 10]  # by number, not by name


def test_rotation_keeps_the_newest_complete_ones(tmp_path):
    for step in (5, 10, 15, 20):
        save(tmp_path, step)
    checkpoints.rotate(tmp_path, newest=20, keep=None)
    assert checkpoints.steps(tmp_path) == [5, 10, 15, 20]
    truncate(tmp_path / "checkpoint-15" / "model.safetensors")
    checkpoints.rotate(tmp_path, newest=20, keep=2)
    assert checkpoints.steps(tmp_path) == [10, 20]
    checkpoints.rotate(tmp_path, newest=20, keep=1)
    assert checkpoints.steps(tmp_path) == [20]
    checkpoints.rotate(tmp_path, newest=20, keep=0)
    assert checkpoints.steps(tmp_path) == [20]


def test_damaged_checkpoints_ahead_do_not_count_when_older_ones_are_deleted(tmp_path):
    """The run was continued from step 5 since 10 and 15 are damaged; their sizes are right. Then step 6 was saved."""
    for step in (5, 10, 15):
        save(tmp_path, step)
    for step in (10, 15):
        flip(tmp_path / f"checkpoint-{step}" / "model.safetensors", 0)
    save(tmp_path, 6)
    checkpoints.rotate(tmp_path, newest=6, keep=1)
    assert checkpoints.steps(tmp_path) == [6, 10, 15]
    assert checkpoints.newest_complete(tmp_path) == 6


def test_rotation_reads_no_file_again(tmp_path, monkeypatch):
    for step in (5, 10, 15):
        save(tmp_path, step)
    monkeypatch.setattr(files, "digest_file", lambda path: pytest.fail(f"{path} was read"))
    checkpoints.rotate(tmp_path, newest=15, keep=2)
    assert checkpoints.steps(tmp_path) == [10, 15]


def test_training_goes_on_where_an_old_checkpoint_cannot_be_deleted(tmp_path, monkeypatch, caplog):
    save(tmp_path, 5)
    save(tmp_path, 10)

    def busy(folder):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(folder))

    monkeypatch.setattr("shutil.rmtree", busy)
    checkpoints.rotate(tmp_path, newest=10, keep=1)
    assert "checkpoint-5 could not be deleted: [Errno 39] Directory not empty" in caplog.text
    assert checkpoints.newest_complete(tmp_path) == 10
    assert checkpoints.find_damage(tmp_path / "checkpoint-5") == "complete.json is missing, it was not saved to its end"


def test_what_is_not_a_failed_write_is_not_renamed_but_cleaned_up(tmp_path):
    for error in (ValueError("a bug"), KeyboardInterrupt()):
        folder = tmp_path / "checkpoint-5"
        folder.mkdir()
        (folder / "part").write_text("x")
        with pytest.raises(type(error)), failed_writes.removed_unless_whole(folder):
            raise error
        assert not folder.exists()


# ---- with the trainer ----


def test_a_checkpoint_holds_no_reference_and_no_pickled_arguments(tmp_path):
    train(tmp_path, steps=5)
    folder = tmp_path / "checkpoint-5"
    assert not (folder / "training_args.bin").exists()
    state = files.read_json(folder / STATE_FILE)
    assert state["step"] == 5
    assert len(json.dumps(state["loader"])) < 2000
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as saved:
        assert not [key for key in saved.keys() if "reference" in key]  # noqa: SIM118


def test_the_marker_lists_every_file_with_size_and_digest(tmp_path):
    train(tmp_path, steps=5)
    folder = tmp_path / "checkpoint-5"
    saved = files.read_marker(folder)["files"]
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", STATE_FILE} <= set(saved)
    assert set(saved) == {path.name for path in folder.iterdir()} - {files.MARKER}
    for name, entry in saved.items():
        assert entry == {"size": (folder / name).stat().st_size, "digest": files.digest_file(folder / name)}


def test_training_without_a_limit_keeps_every_checkpoint(tmp_path):
    train(tmp_path, proxy=False, steps=15, save_total_limit=None)
    assert checkpoints.steps(tmp_path) == [5, 10, 15]


def test_a_run_continues_from_the_checkpoint_before_a_corrupted_one_and_ends_alike(tmp_path, caplog):
    whole = train(tmp_path, steps=15, save_total_limit=3)
    flip(tmp_path / "checkpoint-15" / "optimizer.pt", 3000)
    (tmp_path / "checkpoint-10" / files.MARKER).unlink()
    with caplog.at_level("INFO", logger="doremi"):
        resumed = train(tmp_path, steps=15, save_total_limit=3, resume=True)
    assert "checkpoint-15 is passed over: optimizer.pt has other content than was saved" in caplog.text
    assert "checkpoint-10 is passed over: complete.json is missing" in caplog.text
    assert "continuing from step 5 " in caplog.text
    assert torch.equal(parameters(resumed.model), parameters(whole.model))
    assert checkpoints.newest_complete(tmp_path) == 15  # written anew


def test_a_damaged_checkpoint_that_was_asked_for_is_refused(tmp_path):
    train(tmp_path, steps=5)
    flip(tmp_path / "checkpoint-5" / "model.safetensors", 1000)
    with pytest.raises(InputError, match=r"checkpoint-5: this checkpoint cannot be used: model.safetensors has other"):
        train(tmp_path, steps=10, resume=str(tmp_path / "checkpoint-5"))


# ---- full disks ----


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run of ten steps, with the checkpoints of steps 5 and 10."""
    return train(tmp_path_factory.mktemp("whole"), steps=10)


@pytest.mark.parametrize(
    ("num_bytes", "writer"),
    [(100, r"\[Errno 27\] File too large"), (30_000, "Error while serializing"), (60_000, "inline_container")],
    ids=["Python", "safetensors", "torch"],
)
def test_no_room_for_a_checkpoint_costs_that_checkpoint_alone(tmp_path, whole, num_bytes, writer):
    """Whichever writer fails, the checkpoint before is what the run continues from, to the same end."""
    shutil.copytree(f"{whole.args.output_dir}/checkpoint-5", tmp_path / "checkpoint-5")
    settings = {"steps": 10, "save_total_limit": 1, "resume": True}
    message = rf"checkpoint-10 could not be written: .*{writer}.*MB are free there now.*make room, and the same command"
    with files_of_at_most(num_bytes), pytest.raises(RunFailedError, match=message):
        train(tmp_path, **settings)
    assert checkpoints.steps(tmp_path) == [5]
    assert checkpoints.newest_complete(tmp_path) == 5
    resumed = train(tmp_path, **settings)
    assert torch.equal(parameters(resumed.model), parameters(whole.model))
    assert checkpoints.steps(tmp_path) == [10]


# ---- pickles ----


class RunsCode:
    """Unpickling it makes the folder whose path it was given."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_malicious_pickle_is_never_run(tmp_path, whole, caplog, name):
    proof = tmp_path / "code was run"
    for step in (5, 10):
        folder = tmp_path / f"checkpoint-{step}"
        shutil.copytree(f"{whole.args.output_dir}/checkpoint-{step}", folder)
    torch.save({"state": RunsCode(proof)}, folder / name)
    torch.load(folder / name, weights_only=False)
    assert proof.exists()  # the trap works
    proof.rmdir()
    assert checkpoints.newest_complete(tmp_path) == 5
    assert f"checkpoint-10 is passed over: {name} has " in caplog.text
    checkpoints.complete(folder)  # the attacker renews the digests
    with pytest.raises(RunFailedError, match=r"checkpoint-10: a file in it holds more than numbers and was not loaded"):
        train(tmp_path, steps=20, resume=True)
    assert not proof.exists()


@pytest.mark.parametrize("lacks", [[], ["model.norm.weight"]])
def test_a_resume_warns_of_missing_tensors_but_not_of_tied_ones(tmp_path, monkeypatch, lacks):
    """lm_head.weight is the embedding, saved once. What is not in the checkpoint at all is still worth a warning."""
    train(tmp_path, steps=5)
    folder = checkpoints.path(tmp_path, 5)
    tensors = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in tensors
    kept = {name: tensor for name, tensor in tensors.items() if name not in lacks}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    checkpoints.complete(folder)
    warnings = []
    monkeypatch.setattr(trainer_module.logger, "warning", warnings.append)
    train(tmp_path, steps=10, resume=True)
    assert warnings == [f"There were missing keys in the checkpoint model loaded: {lacks}."] * bool(lacks)
