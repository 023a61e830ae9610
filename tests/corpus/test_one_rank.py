"""Of several processes the first one checks the corpus; the others, and those that a store is sent to, do not."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from doremi.corpus import TokenStore, prepare
from doremi.errors import InputError, MissingFileError
from doremi.experiment import recipe as recipes
from doremi.experiment.opening import open_experiment

SHARD = "train/domain=b/00000"


@pytest.fixture
def recipe(write_jsonl, tokenizer_folder):
    path = write_jsonl("a.jsonl", [{"text": f"the cat {i}", "set": "ab"[i % 2]} for i in range(400)])
    return recipes.parse(
        {
            "corpus": {
                "inputs": [{"path": str(path), "domain_field": "set"}],
                "tokenizer": {"path": str(tokenizer_folder)},
            },
            "training": {"sequence_length": 8, "global_batch_size": 4},
        }
    )


@pytest.fixture
def out(recipe, tmp_path) -> Path:
    """A run directory whose corpus is prepared."""
    open_experiment(recipe, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Every file whose size is asked for."""
    paths: list[str] = []
    stat = os.stat

    def recorded(path, **settings):
        paths.append(os.fspath(path))
        return stat(path, **settings)

    monkeypatch.setattr(os, "stat", recorded)
    return paths


def shards(paths: list[str]) -> int:
    return sum(path.endswith((".bin", ".idx")) for path in paths)


@pytest.mark.parametrize(("rank", "num_files"), [("0", 8), ("1", 0), ("3", 0)])
def test_one_process_asks_for_the_sizes(recipe, out, asked, monkeypatch, rank, num_files):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "4")
    open_experiment(recipe, out)
    assert shards(asked) == num_files


def test_the_first_one_refuses_what_the_others_leave_to_it(recipe, out, monkeypatch):
    path = out / "corpus" / f"{SHARD}.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"00000\.bin: \d+ bytes, the manifest says \d+: the shard was cut short"):
        open_experiment(recipe, out)
    monkeypatch.setenv("RANK", "1")
    assert open_experiment(recipe, out).names == ("a", "b")


@pytest.mark.parametrize("change", ["digest", "domains"])
def test_the_first_one_refuses_a_changed_manifest(recipe, out, change):
    path = out / "corpus" / "manifest.json"
    content = json.loads(path.read_text())
    content[change] = {"digest": "0" * 32, "domains": content["domains"][:1]}[change]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"manifest\.json: was changed after it was written"):
        open_experiment(recipe, out)


def test_sizes_of_a_store_elsewhere(recipe, out, asked, tmp_path, monkeypatch):
    referring = recipe.corpus.model_copy(update={"inputs": [], "store": str(out / "corpus")})
    other = recipe.model_copy(update={"corpus": referring})
    asked.clear()
    open_experiment(other, tmp_path / "other")
    assert shards(asked) == 8
    monkeypatch.setenv("RANK", "1")
    asked.clear()
    open_experiment(other, tmp_path / "other")
    assert shards(asked) == 0


def test_a_store_that_is_sent_to_a_process_is_not_checked_again(recipe, out, asked):
    data = pickle.dumps(prepare(recipe.corpus, out / "corpus"))
    asked.clear()
    assert pickle.loads(data).names == ("a", "b")
    assert shards(asked) == 0


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_a_file_that_is_gone_when_it_is_read(out, suffix):
    store = TokenStore.attach(out / "corpus", packing="pad")
    (out / "corpus" / f"{SHARD}.{suffix}").unlink()
    with pytest.raises(MissingFileError, match=rf"00000\.{suffix}: a file of the corpus is missing; put it back"):
        store.rows("b", np.array([0]), 8)


def test_an_index_that_was_cut_short_when_it_is_read(out):
    path = out / "corpus" / f"{SHARD}.idx"
    path.write_bytes(path.read_bytes()[: 34 + 4 * 5])
    with pytest.raises(InputError, match=r"00000\.idx: 54 bytes, but \d+ documents take \d+: cut short or"):
        TokenStore.attach(out / "corpus").document_lengths("b")
