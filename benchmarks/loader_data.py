"""The data that every contestant of the loader benchmark reads: one corpus, in the layouts that they need."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEQUENCE_LENGTH = 1024
BATCH_SIZE = 512
VOCAB_SIZE = 50_277  # GPT-NeoX's tokenizer, which the weights belong to
SEED = 0


@dataclass(frozen=True)
class Data:
    """The generated corpus in a folder."""

    folder: Path
    rows: dict[str, int]  # of each domain, in the order in which they lie in tokens.bin
    weights: dict[str, float]  # sampling weights, sum 1

    @classmethod
    def open(cls, folder: Path) -> Data:
        """What `generate` left in ``folder``."""
        content = json.loads((folder / "data.json").read_text())
        return cls(folder, content["rows"], content["weights"])

    @property
    def names(self) -> list[str]:
        """The k domains."""
        return list(self.rows)

    @property
    def probabilities(self) -> np.ndarray:
        """float64[k], in the order of the domains."""
        return np.array([self.weights[name] for name in self.rows])

    @property
    def first_rows(self) -> np.ndarray:
        """int64[k]: where each domain begins in `tokens`."""
        sizes = np.array(list(self.rows.values()))
        return np.cumsum(sizes) - sizes

    def tokens(self) -> np.ndarray:
        """uint16[rows of all domains, L], memory-mapped."""
        mapped = np.memmap(self.folder / "tokens.bin", np.uint16, mode="r")
        return np.asarray(mapped).reshape(-1, SEQUENCE_LENGTH)

    def domain_tokens(self, index: int) -> np.ndarray:
        """uint16[rows, L] of one domain."""
        first = self.first_rows[index]
        return self.tokens()[first : first + self.rows[self.names[index]]]

    def sub_folder(self, layout: str, index: int) -> Path:
        """Where a domain lies in another layout; by number, because names hold spaces and brackets."""
        return self.folder / layout / f"{index:02d}"


def generate(folder: Path, published: dict[str, Any], *, num_rows: int) -> Data:
    """Random tokens in 22 domains of the Pile's sizes; the sampling weights are upstream's published 120M ones."""
    sizes, weights = (published[key]["weights"] for key in ("pile-baseline-neox", "upstream-120m"))
    rows = {name: max(1, round(share * num_rows)) for name, share in sizes.items()}
    total = sum(weights.values())
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    with (folder / "tokens.bin").open("wb") as file:
        for count in rows.values():
            rng.integers(VOCAB_SIZE, size=(count, SEQUENCE_LENGTH), dtype=np.uint16).tofile(file)
    content = {"rows": rows, "weights": {name: weights[name] / total for name in rows}}
    (folder / "data.json").write_text(json.dumps(content))
    return Data.open(folder)
