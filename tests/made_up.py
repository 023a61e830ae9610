"""An experiment of three domains whose models were never trained: what a run directory would hold, written by hand."""

from __future__ import annotations

import numpy as np

from doremi import files
from doremi.corpus.tokenizing import tokenizers
from doremi.experiment.opening import Experiment
from doremi.experiment.recipe import parse
from doremi.experiment.run_directory import RunDirectory
from doremi.weights import DomainWeights

DOCUMENTS = {"a": ["stone and river", "the house", "light"], "b": ["x = 1", "y = x + 22"], "c": ["q0 Zx 9k 7f"]}
SIZES = {"a": 600, "b": 300, "c": 100}  # natural weights 0.6, 0.3, 0.1
PARAMETERS = 1000  # of every trained model, as their markers say


class Store:
    """Three domains and their held-out documents under a byte-level tokenizer."""

    names = tuple(DOCUMENTS)
    sets = ()
    digest = "corpus-1"

    def __init__(self, folder):
        self.path, self.tokenizer_path = folder, folder / "tokenizer"
        texts = [text for of_domain in DOCUMENTS.values() for text in of_domain]
        tokenizer = tokenizers.train(texts, vocab_size=260)
        tokenizer.save(self.tokenizer_path)
        self.tokenizer_digest, self.vocab_size = tokenizer.entry.digest, tokenizer.entry.vocab_size
        self.eos_token_id = tokenizer.entry.eos_token_id
        self._held_out = {name: tokenizer.encode(texts).split() for name, texts in DOCUMENTS.items()}

    def num_tokens(self, name, split="train"):
        return SIZES[name] if split == "train" else sum(len(ids) + 1 for ids in self._held_out[name])

    def num_documents(self, name, split="train"):
        assert split == "held_out"
        return len(DOCUMENTS[name])

    def num_bytes(self, name, split="train"):
        assert split == "held_out"
        return sum(len(text.encode()) for text in DOCUMENTS[name])

    def documents(self, name, split="train"):
        assert split == "held_out"
        return iter(np.array(ids, np.uint16) for ids in self._held_out[name])


def make(folder, *, seed=7, **sections):
    """An experiment in ``folder``; ``sections`` change those of a recipe whose three models are the same."""
    content = {
        "corpus": {"inputs": [{"path": "x"}]},
        "training": {"steps": 30, "sequence_length": 8, "global_batch_size": 6},
        "weights": {"seeds": 3, "baselines": ["uniform"]},
    }
    for section, changes in sections.items():
        content[section] = content.get(section, {}) | changes
    recipe = parse(content | {"seed": seed})
    store = Store(folder / "corpus")
    experiment = Experiment(recipe, RunDirectory(folder), store, DomainWeights(SIZES))
    return Experiment(recipe, RunDirectory(folder), store, experiment.resolve(recipe.weights.reference))


def write_weights(experiment, answer, *, rounds=1):
    """DoReMi's answer, ``weights.json``."""
    provenance = {
        "rounds": {"status": "done", "changes": [0.4] * rounds, "weights": [dict(answer)] * rounds},
        "spread": {"a": 0.01},
        "alarms": [],
    }
    DomainWeights(answer).to_json(experiment.directory.weights, provenance=provenance)


def finish(folder, *, digest="made up", history=(), **marker):
    """The marker and the log of a finished run."""
    found = {"digest": digest, "steps": 30, "num_parameters": PARAMETERS, "num_tokens": 30 * 6 * 8} | marker
    files.write_marker(folder, {"train_seconds": 1.5, "epochs": {"a": 0.5}} | found)
    files.write_json(folder / "history.json", list(history))
