"""Damage to a store is found, and named."""

from __future__ import annotations

import json

import pytest

from doremi.corpus import TokenStore, prepare, verify
from doremi.corpus.config import CorpusConfig
from doremi.errors import InputError, MissingFileError


@pytest.fixture
def folder(write_jsonl, tmp_path, tokenizer_folder):
    path = write_jsonl("a.jsonl", [{"text": f"text {i}", "set": "ab"[i % 2]} for i in range(100)])
    inputs = [{"path": str(path), "domain_field": "set"}]
    return prepare(CorpusConfig(inputs=inputs, tokenizer={"path": str(tokenizer_folder)}), tmp_path / "store").path


def faults(folder) -> list[str]:
    return [str(fault).removeprefix(f"{folder}/") for fault in verify(folder).faults]


def test_intact(folder):
    found = verify(folder)
    assert found.faults == []
    paths = [path for path in folder.rglob("*") if path.suffix in (".bin", ".idx")]
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    assert found.assurance == (
        "every file is as it was written: the manifest, the tokenizer and 8 files of tokens and indices "
        f"({megabytes:.1f} MB) have their digests"
    )


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
@pytest.mark.parametrize("at", [0, -1])
def test_flipped_bit(folder, suffix, at):
    path = folder / "held_out" / "domain=b" / f"00000{suffix}"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    if suffix == ".bin":
        TokenStore.open(folder)  # which does not read the tokens
    else:
        with pytest.raises(InputError, match=r"00000\.idx: "):
            TokenStore.open(folder)
    assert faults(folder) == [f"held_out/domain=b/00000{suffix}: its content changed: the digest is not the manifest's"]


def test_every_fault_is_listed(folder):
    truncated = folder / "train" / "domain=a" / "00000.bin"
    size = truncated.stat().st_size
    truncated.write_bytes(truncated.read_bytes()[:-2])
    (folder / "train" / "domain=b" / "00000.idx").unlink()
    assert faults(folder) == [
        f"train/domain=a/00000.bin: {size - 2} bytes, the manifest says {size}",
        "train/domain=b/00000.idx: missing",
    ]


def test_changed_manifest(folder):
    content = json.loads((folder / "manifest.json").read_text())
    content["domains"][0]["train"][0]["bytes"] += 1
    (folder / "manifest.json").write_text(json.dumps(content))
    assert faults(folder) == ["manifest.json: was changed: its digest is not that of its content"]


def test_another_tokenizer(folder):
    path = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"].reverse()
    path.write_text(json.dumps(content))
    [fault] = faults(folder)
    assert fault.startswith("tokenizer: another tokenizer (digest ")
    path.unlink()
    [fault] = faults(folder)
    assert fault.startswith("tokenizer: cannot be opened: ")


def test_no_store(tmp_path):
    with pytest.raises(MissingFileError, match="no token store here"):
        verify(tmp_path)
