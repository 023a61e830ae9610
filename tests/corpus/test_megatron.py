"""megatron-core itself reads our bytes, from an environment in which it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EOS = 0  # of `build_store`
BENCHMARK_PYTHON = Path(__file__).parents[2] / ".venv-bench" / "bin" / "python"
READ = """
import json, sys
from megatron.core.datasets.indexed_dataset import IndexedDataset
found = {}
for prefix in sys.argv[1:]:
    dataset = IndexedDataset(prefix)
    found[prefix] = {
        "documents": [dataset[index].tolist() for index in range(len(dataset))],
        "boundaries": dataset.document_indices.tolist(),
        "lengths": dataset.sequence_lengths.tolist(),
        "middle": dataset.get(0, offset=1, length=2).tolist(),
        "dtype": dataset[0].dtype.name,
    }
print(json.dumps(found))
"""


@pytest.fixture
def megatron_python() -> str:
    """An interpreter that has megatron-core: our own, or that of `make bench`."""
    if importlib.util.find_spec("megatron") is not None:
        return sys.executable
    if BENCHMARK_PYTHON.exists():
        return str(BENCHMARK_PYTHON)
    return pytest.skip("megatron-core is not installed (extra dev on Linux, or make bench)")


def test_megatron_reads_the_documents_that_went_in(megatron_python, build_store):
    documents = {"small": [[5, 6, 7], [8], [9, 10]], "large": [[70_000, 1, 2], [2**31 - 1]]}
    expected = {}
    for name, dtype in (("small", "uint16"), ("large", "int32")):
        store = build_store({name: [documents[name]]}, dtype=dtype)
        [entry] = store.manifest["domains"][0]["train"]
        with_eos = [[*ids, EOS] for ids in documents[name]]
        expected[str(store.path / entry["file"])] = {
            "documents": with_eos,
            "boundaries": list(range(len(with_eos) + 1)),
            "lengths": list(map(len, with_eos)),
            "middle": with_eos[0][1:3],
            "dtype": dtype,
        }
    process = subprocess.run(
        [megatron_python, "-W", "ignore", "-c", READ, *expected],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert json.loads(process.stdout.splitlines()[-1]) == expected
