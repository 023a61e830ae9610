"""Manifests and indices of a token store that are not what was written, or never were ours."""

from __future__ import annotations

import copy
import json
import struct

import numpy as np
import pytest

from doremi import files
from doremi.corpus import TokenStore
from doremi.corpus.storing import indexed, manifest
from doremi.errors import InputError
from tests.corpus.conftest import build_store  # noqa: F401 - a fixture
from tests.damage.test_read_back import mutate, mutations
from tests.end_to_end.proxy_run import in_process

DOCUMENTS = {"a": [[[1, 2, 3], [4, 5]], [[6]]], "b": [[[7, 8]]]}


@pytest.fixture
def folder(build_store):  # noqa: F811
    return build_store(DOCUMENTS, {"a": [[[9]]], "b": [[[9]]]}).path


def rewrite(folder, change):
    """Change the manifest and give it the digest that it then should have: whoever forges one does that too."""
    content = json.loads((folder / manifest.NAME).read_text())
    change(content)
    content["digest"] = manifest.content_digest(content)
    (folder / manifest.NAME).write_text(json.dumps(content))


# ---- types ----

WRONG_TYPES = {
    "dtype is another": lambda m: m.update(dtype="float64"),
    "dtype is a number": lambda m: m.update(dtype=3),
    "no tokenizer": lambda m: m.update(tokenizer=None),
    "a tokenizer without its vocabulary": lambda m: m["tokenizer"].pop("vocab_size"),
    "the id of EOS is text": lambda m: m["tokenizer"].update(eos_token_id="0"),
    "domains by name": lambda m: m.update(domains={"a": {}}),
    "no domain": lambda m: m.update(domains=[]),
    "a domain is text": lambda m: m.update(domains=["a"]),
    "a domain without a name": lambda m: m["domains"][0].pop("name"),
    "the name of a domain is a number": lambda m: m["domains"][0].update(name=3),
    "a domain twice": lambda m: m["domains"].append(m["domains"][0]),
    "a domain without a split": lambda m: m["domains"][0].pop("held_out"),
    "shards by number": lambda m: m["domains"][0].update(train={"0": {}}),
    "a shard is a path": lambda m: m["domains"][0].update(train=["train/a/0"]),
    "a shard without its file": lambda m: m["domains"][0]["train"][0].pop("file"),
    "a shard of true tokens": lambda m: m["domains"][0]["train"][0].update(tokens=True),
    "a shard of '3' documents": lambda m: m["domains"][0]["train"][0].update(documents="3"),
    "a shard of -1 tokens": lambda m: m["domains"][0]["train"][0].update(tokens=-1),
    "a shard of too many tokens": lambda m: m["domains"][0]["train"][0].update(tokens=10**30),
    "a shard with more than is known": lambda m: m["domains"][0]["train"][0].update(more=1),
    "inputs by name": lambda m: m.update(inputs={"a": 1}),
    "an input without what was skipped": lambda m: m.update(inputs=[{"name": "a"}]),
    "a packing that is none": lambda m: m.update(packing="tight"),
    "the version is true": lambda m: m.update(version=True),
}


@pytest.mark.parametrize("kind", WRONG_TYPES)
@pytest.mark.parametrize("verb", ["show", "verify"])
def test_a_value_of_another_type_is_one_line(folder, capsys, kind, verb):
    rewrite(folder, WRONG_TYPES[kind])
    assert in_process("corpus", verb, folder) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith(f"doremi: {folder}/manifest.json: ")
    assert stderr.count("\n") == 1


def test_every_place_of_a_manifest(folder):
    """Whatever stands there, it opens as what it was or is one error."""
    content = json.loads((folder / manifest.NAME).read_text())
    refused = 0
    for path, wrong in mutations(content):
        changed = mutate(content, path, wrong)
        if isinstance(changed, dict):
            changed = copy.deepcopy(changed) | {"digest": manifest.content_digest(changed)}
        (folder / manifest.NAME).write_text(json.dumps(changed))
        try:
            assert TokenStore.open(folder).names
        except InputError:
            refused += 1
    assert refused > 200


def test_a_run_on_such_a_store(tmp_path, folder, capsys):
    rewrite(folder, WRONG_TYPES["no tokenizer"])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"corpus: {{store: {folder}}}\ntraining: {{steps: 2}}\n")
    assert in_process("run", recipe, "--out", tmp_path / "out") == 2
    assert f"doremi: {folder}/manifest.json: tokenizer: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("manifest.json"))


# ---- places ----


@pytest.mark.parametrize("place", ["/{outside}", "../{name}", "train/../../{name}", "..", "", "a\\..\\b", "a\0b"])
def test_a_shard_outside_of_the_store_is_not_read(tmp_path, folder, place):
    outside = tmp_path / "outside"
    for suffix in (".bin", ".idx"):
        outside.with_suffix(suffix).write_bytes((folder / "train/domain=b" / f"00000{suffix}").read_bytes())
    file = place.format(outside=str(outside).lstrip("/"), name="outside")
    rewrite(folder, lambda m: m["domains"][1]["train"][0].update(file=file))
    with pytest.raises(InputError, match=r"domains\.1\.train\.0\.file: .*a shard has to lie below the store"):
        TokenStore.open(folder)


def test_a_link_in_the_stores_folder_is_followed(tmp_path, folder):
    """Whoever can make one there can write there; a manifest comes from elsewhere, a link does not."""
    (folder / "train").rename(tmp_path / "another disk")
    (folder / "train").symlink_to(tmp_path / "another disk")
    assert TokenStore.open(folder).rows("b", np.array([0]), 3).tokens.tolist() == [[7, 8, 0]]


def test_a_saved_dataset_does_not_name_files_elsewhere(tmp_path):
    from doremi.corpus.storing import arrow_shards

    files.write_json(tmp_path / "state.json", {"_data_files": [{"filename": "../other.arrow"}]})
    with pytest.raises(InputError, match=r"names a file '\.\./other\.arrow' outside of its folder"):
        arrow_shards.arrow_shards(tmp_path, "input_ids")


def test_stores_that_refer_to_each_other_in_a_circle(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        content = {"format": manifest.IN_PLACE, "version": 1, "store": str(tmp_path / other), "digest": "d"}
        files.write_json(tmp_path / name / manifest.NAME, content)
    with pytest.raises(InputError, match="refers to a store that refers back to it"):
        TokenStore.open(tmp_path / "a")


# ---- indices ----

HEADER = struct.Struct("<9sQBQQ")
TWO = HEADER.size, 4, 8  # of the two documents of a/00000: where lengths begin, and bytes of a length and an offset

WRONG_INDICES = {
    "magic": (0, b"X", "not a Megatron index"),
    "magic's end": (7, b"X", "not a Megatron index"),
    "version": (9, struct.pack("<Q", 2), "index version 2 with dtype code 8"),
    "dtype": (17, b"\x04", "index version 1 with dtype code 4"),
    "documents": (18, struct.pack("<Q", 3), "boundaries of 3 documents"),
    "boundaries": (26, struct.pack("<Q", 9), "9 boundaries of 2 documents"),
    "length": (34, struct.pack("<i", 5), "lengths of 8 tokens in all, the shard has 7"),
    "length below 1": (34, struct.pack("<ii", 7, 0), "a document of 0 tokens"),
    "lengths exchanged": (34, struct.pack("<ii", 3, 4), "its offsets and boundaries are not those"),
    "first offset": (42, struct.pack("<q", 2), "its offsets and boundaries are not those"),
    "offsets that fall": (42, struct.pack("<qq", 8, 0), "its offsets and boundaries are not those"),
    "a boundary": (58, struct.pack("<q", 1), "its offsets and boundaries are not those"),
}


@pytest.mark.parametrize("kind", WRONG_INDICES)
@pytest.mark.parametrize("is_long", [False, True])
def test_an_index_that_is_not_its_shards_is_refused_when_the_store_is_opened(folder, monkeypatch, kind, is_long):
    at, data, message = WRONG_INDICES[kind]
    path = folder / "train/domain=a/00000.idx"
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)
    if is_long:  # then what lies between the ends is not read
        monkeypatch.setattr(indexed, "MAX_BYTES_AT_OPENING", 0)
        if kind in ("a boundary", "length below 1", "lengths exchanged", "first offset", "offsets that fall", "length"):
            message = "its documents lie in bytes"
    if is_long and kind in ("a boundary", "length"):
        TokenStore.open(folder)
        return
    with pytest.raises(InputError, match=rf"domain=a/00000\.idx: .*{message}"):
        TokenStore.open(folder)


def test_a_length_in_the_middle_of_a_long_index_is_seen_when_it_is_read(folder, monkeypatch):
    at, data, message = WRONG_INDICES["length"]
    path = folder / "train/domain=a/00000.idx"
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)
    monkeypatch.setattr(indexed, "MAX_BYTES_AT_OPENING", 0)
    store = TokenStore.open(folder)
    with pytest.raises(InputError, match=message):
        store.document_lengths("a")


def test_an_index_of_another_shard(folder):
    """Whole and right, but of other documents."""
    indexed.write_index(folder / "train/domain=a/00000.idx", np.array([5, 2], np.int32), dtype="uint16")
    TokenStore.open(folder)  # as many tokens in as many documents; its digest says so to `doremi corpus verify`
    indexed.write_index(folder / "train/domain=a/00000.idx", np.array([7], np.int32), dtype="uint16")
    with pytest.raises(InputError, match=r"00000\.idx: 62 bytes|00000\.idx: \d+ bytes, the manifest says \d+"):
        TokenStore.open(folder)
    assert in_process("corpus", "verify", folder) == 1


def test_export_does_not_begin(tmp_path, folder, capsys):
    path = folder / "train/domain=a/00000.idx"
    path.write_bytes(b"X" + path.read_bytes()[1:])
    assert in_process("corpus", "export", folder, "--out", tmp_path / "out", "--sequence-length", "2") == 2
    assert "not a Megatron index" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
