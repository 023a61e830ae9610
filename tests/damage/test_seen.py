"""Damage to what a finished stage left: the next stage that reads it says so and goes no further."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from doremi import files
from doremi.errors import RunFailedError
from doremi.models import saved_files
from tests import trained
from tests.end_to_end.conftest import write_corpus, write_recipe
from tests.end_to_end.proxy_run import in_process


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    write_corpus(folder)
    recipe = write_recipe(folder, steps=2, eval_steps=2, save_steps=2, logging_steps=2)
    content = yaml.safe_load(recipe.read_text())
    recipe.write_text(
        yaml.safe_dump(content | {"methods": ["natural", "uniform", {"doremi": {"reference_cache": True}}]})
    )
    assert in_process("run", recipe, "--out", folder / "out") == 0
    return folder


@pytest.fixture
def out(tmp_path, finished):
    shutil.copytree(finished / "out", tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def command(finished, out, capsys):
    """Runs a verb on the damaged directory; (exit code, the line on stderr)."""

    def run(*arguments):
        verb, *others = arguments
        code = in_process(verb, finished / "tiny.yaml", *others, "--out", out)
        return code, capsys.readouterr().err.rstrip().rpartition("\n")[2]

    return run


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forget(folder: Path) -> None:
    """As if the model were still to be trained."""
    (folder / "complete.json").unlink()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_bit_of_the_reference_that_flipped_before_the_proxy_is_trained(command, out, name):
    forget(trained.folder(out, "proxy"))
    flip_a_bit(trained.folder(out, "reference") / name)
    code, message = command("train", "--run", "proxy")
    assert code == 1
    folder = trained.folder(out, "reference")
    assert re.fullmatch(
        rf"doremi: the run failed: {folder}: {re.escape(name)} has other content than was saved "
        r"\(digest [0-9a-f]{32}, expected [0-9a-f]{32}\)\. Put back a copy, or delete the folder and run the same "
        "command to train it again",
        message,
    )


def test_another_tokenizer_in_the_corpus(command, out):
    tokenizer = out / "corpus/tokenizer/tokenizer.json"
    content = json.loads(tokenizer.read_text())
    content["model"]["merges"].reverse()
    tokenizer.write_text(json.dumps(content))
    code, message = command("train", "--run", "proxy")
    assert code == 1
    assert "corpus/tokenizer: another tokenizer than the one that the corpus was made with (digest " in message


def test_a_file_of_the_reference_that_is_gone_or_cut_short(command, out):
    forget(trained.folder(out, "proxy"))
    model = trained.folder(out, "reference") / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    assert re.search(r"model\.safetensors has [\d,]+ bytes, [\d,]+ were saved", command("train", "--run", "proxy")[1])
    model.unlink()
    code, message = command("train", "--run", "proxy")
    assert code == 1
    assert f"{trained.folder(out, 'reference')}: model.safetensors is missing. Put back a copy" in message


def test_a_bit_of_a_main_model_that_flipped_before_it_is_scored(command, out):
    (trained.folder(out, "doremi") / "held_out.parquet").unlink()
    flip_a_bit(trained.folder(out, "doremi") / "model.safetensors")
    code, message = command("evaluate")
    assert code == 1
    assert f"{trained.folder(out, 'doremi')}: model.safetensors has other content" in message


def test_a_log_that_changed_before_curves_are_made_of_it(command, out):
    history = trained.folder(out, "doremi") / "history.json"
    text = history.read_text()
    history.write_text(re.sub(r'(_nats/prose": \d\.\d)\d', r"\g<1>9", text, count=1))
    assert history.read_text() != text
    code, message = command("evaluate")
    assert code == 1
    assert f"{trained.folder(out, 'doremi')}: history.json has other content" in message


def test_an_answer_that_changed_before_the_main_model_is_trained_on_it(command, out):
    forget(trained.folder(out, "doremi"))
    proxy = trained.folder(out, "proxy") / "complete.json"
    content = json.loads(proxy.read_text())
    content["objective"]["weights_sum"][0] += 1e-9
    files.write_json(proxy, content)
    for verb in (["train", "--run", "doremi"], ["search"], ["run"]):
        code, message = command(*verb)
        assert code == 1
        assert re.search(
            rf"{proxy}: its objective is not the one that was written \(digest \w+, expected \w+\)", message
        )
        assert message.endswith("delete its folder and run the same command to train the model again")


@pytest.mark.parametrize("content", [{"prose": 1, "wiki": 2}, {"train_domain_weights": {"prose": 1.0}}, None])
def test_answers_are_written_anew_from_the_runs_whatever_lies_there(command, out, finished, content):
    """Nothing is ever trained on what these files say."""
    for name in ("weights.json", "answers/doremi.json"):
        if content is None:
            (out / name).unlink()
        else:
            files.write_json(out / name, content)
    assert command("run")[0] == 0
    for name in ("weights.json", "answers/doremi.json"):
        assert (out / name).read_bytes() == (finished / "out" / name).read_bytes()


def test_losses_that_changed(command, out):
    flip_a_bit(trained.folder(out, "doremi") / "held_out.parquet")
    code, message = command("evaluate")
    assert code == 2
    assert re.search(r"held_out\.parquet: damaged \(.*\); delete it, and the model is scored again", message)


def test_stored_reference_losses_that_changed_are_computed_anew(command, out, finished, caplog):
    (losses,) = (out / "reference_losses").glob("*/nats.bin")
    data = bytearray(losses.read_bytes())
    first = next(index for index, byte in enumerate(data) if byte)
    data[first] ^= 1
    losses.write_bytes(data)
    model = trained.folder(out, "proxy") / "model.safetensors"
    shutil.rmtree(model.parent)
    assert command("train", "--run", "proxy")[0] == 0
    assert "nats.bin: 1 rows, or more, are damaged; they are computed anew" in caplog.text
    for name in ("answers/doremi.json", model.relative_to(out), losses.relative_to(out)):
        assert (out / name).read_bytes() == (finished / "out" / name).read_bytes()


def test_an_undamaged_directory_is_read_once(command, out, monkeypatch):
    """Each file that is needed, however often it is used; models that are not loaded are not read."""
    read = []
    digest = files.digest_file
    monkeypatch.setattr(files, "digest_file", lambda path: read.append(path) or digest(path))
    assert command("evaluate")[0] == 0
    assert {path.name for path in read} == {"history.json"}
    assert len(read) == len(set(read)) == 4  # reference, proxy, main, uniform


def test_a_marker_of_an_earlier_release_has_no_digests(command, out, caplog):
    marker = trained.folder(out, "doremi") / "complete.json"
    content = json.loads(marker.read_text())
    del content["files"]
    files.write_json(marker, content)
    flip_a_bit(trained.folder(out, "doremi") / "model.safetensors")  # of a mantissa: nothing that could be seen
    (trained.folder(out, "doremi") / "held_out.parquet").unlink()
    assert command("evaluate")[0] == 0
    assert f"{trained.folder(out, 'doremi')}: finished by a release that kept no digests" in caplog.text


def test_all_weight_files_are_recorded_and_nothing_that_comes_later(out):
    saved = json.loads((trained.folder(out, "doremi") / "complete.json").read_text())["files"]
    assert {"model.safetensors", "config.json", "tokenizer.json", "history.json"} <= set(saved)
    assert not {"held_out.parquet", "started.json", "complete.json"} & set(saved)


def test_a_model_of_several_files_or_of_the_old_kind(tmp_path):
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"weights")
    files.write_marker(tmp_path, {"files": saved_files.record(tmp_path, tmp_path.iterdir())})
    saved_files.check(tmp_path)
    for name in ("model-00002-of-00002.safetensors", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"Weights")
        with pytest.raises(RunFailedError, match=f"{name} has other content"):
            saved_files.check(tmp_path)
        (tmp_path / name).write_bytes(b"weights")
    files.write_marker(tmp_path, {"files": {"model.safetensors": 3}})
    with pytest.raises(RunFailedError, match=r"complete\.json does not say what was saved"):
        saved_files.check(tmp_path)
