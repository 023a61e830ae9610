"""An experiment of three domains whose models were never trained: what a run directory would hold, written by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from doremi import files
from doremi.corpus.tokenizing import tokenizers
from doremi.experiment import bench, finished, flops, ledger, search
from doremi.experiment.opening import Experiment
from doremi.experiment.recipe import parse
from doremi.experiment.run_directory import RunDirectory
from doremi.methods import states

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


def make(folder, *, seed=7, doremi=None, rules=("uniform",), **sections):
    """An experiment in ``folder``; ``sections`` change those of a recipe whose three models are the same.

    It compares natural weights, DoReMi's with the options ``doremi``, and ``rules``, with three seeds.
    """
    content = {
        "corpus": {"inputs": [{"path": "x"}]},
        "training": {"steps": 30, "sequence_length": 8, "global_batch_size": 6},
        "verify": {"seeds": 3},
        "methods": ["natural", {"doremi": doremi or {}}, *rules],
        "seed": seed,
    }
    for section, changes in sections.items():
        content[section] = content.get(section, {}) | changes if isinstance(changes, dict) else changes
    recipe = parse(content)
    store = Store(folder / "corpus")
    return Experiment(recipe, RunDirectory(folder), store, bench.make(recipe, store, bench.set_sizes(store)))


def finish_search(experiment, *by_round, proxy_log=lambda number: (), **facts):
    """Every run that DoReMi asks for, where the proxies of the n-th round answer ``by_round[n - 1]``.

    Args:
        experiment: whose method is to find weights.
        by_round: the answers.
        proxy_log: the log of a proxy, by round.
        facts: of all markers; ``proxy`` are those of proxies alone.
    """
    of_proxies = facts.pop("proxy", {})
    method, done, number = experiment.recipe.doremi_methods()[0], [], 0
    while asked := method.ask(experiment.bench, done):
        number += asked[0].policy is not None
        for run in asked:
            if run.policy is None:
                finish(experiment, run, **facts)
            else:
                state = state_of(experiment, run, by_round[number - 1])
                finish(
                    experiment,
                    run,
                    objective=state,
                    history=proxy_log(number),
                    **finished.seal("objective", state),
                    **(facts | of_proxies),
                )
            done.append(ledger.outcome(experiment, run))
    return search.known(experiment)


def state_of(experiment, run, answer):
    """What the marker of a proxy holds: the adversary after four updates whose mean is ``answer``."""
    found = np.array([answer[name] for name in experiment.names])
    state = replace(run.policy.init(experiment.bench), num_updates=4, weights=found, weights_sum=4 * found)
    return states.dump(state)


def finish(experiment, run, *, history=(), digest=None, **marker):
    """The marker and the log of a finished run, which gives its folder."""
    planned = ledger.training_run(experiment, run)
    training = planned.training
    num_rows = training.steps * training.global_batch_size
    found = {
        "digest": digest or planned.digest(experiment.store.digest),
        "steps": training.steps,
        "num_parameters": PARAMETERS,
        "num_tokens": training.num_tokens,
        "train_seconds": 1.5,
        "epochs": {"a": 0.5},
        "rows": {name: round(weight * num_rows) for name, weight in run.weights.items()},
        "passes": flops.expected_passes(run.policy, num_rows=num_rows, num_micro_batches=1).as_dict(),
    }
    files.write_marker(planned.folder, found | marker)
    files.write_json(planned.folder / "history.json", list(history))
    return planned.folder
