"""Exports loaded by the libraries that they are for: what is drawn has the weights as shares of its tokens.

The corpus tells domain and file by token id (see conftest). Where a library is not in our environment, the one of the
benchmarks is used; see stacks.txt.
"""

from __future__ import annotations

import json
import runpy
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import yaml

from doremi import DomainWeights
from doremi.corpus import to_datasets
from doremi.exporters import Export, export
from tests.exporters.conftest import DOCUMENTS, WEIGHTS, first_id

UNITS = ("documents", "sequences")


def write(made: Export, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in made.files.items():
        (folder / name).write_text(text)


def shares(drawn: Mapping[str, int]) -> dict[str, float]:
    """Of what was drawn, by domain: an id's tens are its domain's."""
    by_domain = Counter[str]()
    for token, number in drawn.items():
        by_domain[next(name for name in WEIGHTS if first_id(name) // 10 == int(token) // 10)] += number
    return {name: by_domain[name] / by_domain.total() for name in WEIGHTS}


def test_megatron_core_blends_it(mixture, run_program, tmp_path):
    """The blends of Megatron-LM, in JSON and as words, and of Megatron-Bridge. Shares to a few samples in 2,000."""
    for format_id in ("megatron", "megatron-bridge"):
        write(export(mixture, format_id), tmp_path)
    files = ("megatron-blend.json", "megatron-data-args.txt", "megatron-bridge.yaml")
    for file, (drawn, held_out) in zip(files, run_program("megatron", "draw_from_megatron.py", *files), strict=True):
        assert shares(drawn) == pytest.approx(WEIGHTS, abs=2e-3)
        total = sum(drawn.values())
        assert [drawn[token] / total for token in ("10", "11")] == pytest.approx([0.45 * 0.4, 0.45 * 0.6], abs=2e-3)
        assert list(held_out) == ([] if file.endswith(".txt") else ["10", "20", "30"])


@pytest.mark.parametrize("unit", UNITS)
def test_hugging_face_interleaves_it(mixture, store, tmp_path, unit):
    """2,500 draws: shares of tokens to 0.04. Documents have 10 to 400 tokens: drawn by weight they would be 0.3 off."""
    write(export(mixture, "hf", unit=unit), tmp_path)
    rows = "documents" if unit == "documents" else "chunks"
    to_datasets(store, tmp_path / "corpus", rows=rows, sequence_length=20)
    module = runpy.run_path(str(tmp_path / "hf_mixture.py"))
    streams = {
        name: dataset.to_iterable_dataset().repeat(None)
        for name, dataset in module["load"](str(tmp_path / "corpus")).items()
    }
    drawn = Counter[str]()
    for row in islice(module["interleave"](streams, seed=5), 2500):
        ids = row["input_ids"]
        drawn[str(max(ids))] += len(ids) + (unit == "documents")  # their EOS is not in the export
    assert shares(drawn) == pytest.approx(WEIGHTS, abs=0.04)


def test_grain_mixes_it(mixture, run_program, tmp_path):
    """Both kinds of data set, by both units. grain makes whole numbers of the weights: they are up to 1 % off."""
    for unit in UNITS:
        write(export(mixture, "torchtitan", unit=unit), tmp_path / unit)
    found = run_program("grain", "draw_from_grain.py", json.dumps({unit: _draws(unit) for unit in UNITS}))
    for drawn in (*found["documents"], *found["sequences"]):
        assert shares(drawn) == pytest.approx(WEIGHTS, abs=0.02)


def test_mosaicml_streams_it(mixture, run_program, tmp_path):
    for unit in UNITS:
        write(export(mixture, "mosaicml", unit=unit), tmp_path / unit)
    found = run_program("streaming", "draw_from_streaming.py", json.dumps({unit: _draws(unit) for unit in UNITS}))
    for unit in UNITS:
        assert shares(found[unit]) == pytest.approx(WEIGHTS, abs=0.02)


def _draws(unit: str) -> dict[str, tuple[int, list[int]]]:
    """Of each domain its id and the tokens that a draw brings, EOS included."""
    if unit == "sequences":
        return {name: (first_id(name), [16]) for name in WEIGHTS}
    return {
        name: (first_id(name), [length + 1 for number, length in shards for _ in range(number)])
        for name, shards in DOCUMENTS.items()
    }


def test_litdata_combines_it(mixture, run_program, tmp_path):
    """Until the first domain's 900 blocks are used up: some 2,000 draws, so that shares are within 0.04."""
    write(export(mixture, "litgpt"), tmp_path)
    drawn = run_program("litdata", "draw_from_litdata.py", json.dumps({name: first_id(name) for name in WEIGHTS}))
    assert max(drawn.values()) == 900
    assert shares(drawn) == pytest.approx(WEIGHTS, abs=0.04)


def test_olmo_core_builds_it(mixture, run_program, tmp_path):
    """Once within what there is, once with the second domain, of 2,000 tokens, seen 2.4 times."""
    sizes = (6400, 16_000)
    for num_tokens in sizes:
        write(export(replace(mixture, num_tokens=num_tokens), "olmo-core"), tmp_path / str(num_tokens))
    found = run_program("olmo_core", "draw_from_olmo_core.py", *map(str, sizes))
    for num_tokens in sizes:
        names, drawn = found[str(num_tokens)]
        assert names == list(WEIGHTS)
        assert sum(drawn.values()) * 16 >= num_tokens
        assert shares(drawn) == pytest.approx(WEIGHTS, abs=0.02)


def test_nanotron_folders_are_read_by_datatrove(mixture, run_program, tmp_path):
    """nanotron's data sets are datatrove's: windows of each linked file."""
    write(export(mixture, "nanotron"), tmp_path)
    subprocess.run(["sh", "nanotron-links.sh"], check=True, cwd=tmp_path)
    dataset = yaml.safe_load((tmp_path / "nanotron.yaml").read_text())["data_stages"][0]["data"]["dataset"]
    assert dataset["token_size_in_bytes"] == 2  # which the program reads
    found = run_program("datatrove", "read_with_datatrove.py", *dataset["dataset_folder"])
    for domain, windows in zip(mixture.domains, found, strict=True):
        assert len(windows) == sum(shard.tokens // 16 for shard in domain.shards)
        ids = {first_id(domain.name) + number for number in range(len(domain.shards))}
        assert {max(window) for window in windows} == ids
        assert {len(window) for window in windows} == {16}


def test_the_weights_as_they_are_would_fail_here():
    """What the tests above rule out: documents drawn by the weights give the long ones most of the tokens."""
    means = {name: sum(n * (t + 1) for n, t in of) / sum(n for n, _ in of) for name, of in DOCUMENTS.items()}
    naive = DomainWeights({name: WEIGHTS[name] * means[name] for name in WEIGHTS})
    assert max(abs(naive[name] - WEIGHTS[name]) for name in WEIGHTS) > 0.25
