"""The data set of an export for litgpt, over folders that litdata writes: blocks by token id."""

import json
import runpy
import sys
from collections import Counter

import litdata
import torch

BLOCK = 17


def document(token: int) -> torch.Tensor:
    return torch.full((3 * BLOCK,), token, dtype=torch.int64)


if __name__ == "__main__":
    export = runpy.run_path("litgpt_mixture.py")
    for name, token in json.loads(sys.argv[1]).items():
        litdata.optimize(
            document,
            [token] * 300,
            f"data/{export['FOLDERS'][name]}",
            chunk_size=10 * BLOCK,
            num_workers=1,
            item_loader=litdata.TokensLoader(block_size=BLOCK),
            start_method="fork",
            verbose=False,
        )
    dataset = export["train_dataset"]("data", block_size=BLOCK, seed=3)
    print(json.dumps(Counter(int(sample.max()) for sample in dataset)))
