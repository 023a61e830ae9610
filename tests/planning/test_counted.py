"""FLOPs of a plan against those that real training counts with PyTorch's own counter, to the last one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from doremi import files
from doremi.config import RUNS
from doremi.experiment import ledger, recipe
from doremi.experiment.held_out_curve import HeldOutCurve
from doremi.experiment.opening import open_experiment
from doremi.experiment.run_directory import RunDirectory
from doremi.methods import imagined
from doremi.models.size import measure
from doremi.planning import inputs, stages
from doremi.training.trainer import DoReMiTrainer
from tests.end_to_end.conftest import write_corpus, write_recipe

LENGTH, BATCH, STEPS, WIDTH = 32, 6, 4, 16
ROWS = BATCH * STEPS
EAGER = {"preset": "tiny", "overrides": {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 1},
         "attn_implementation": "eager"}  # fmt: skip
MODELS = {"reference": EAGER | {"overrides": EAGER["overrides"] | {"num_hidden_layers": 2}},
          "proxy": EAGER, "main": EAGER}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counted")
    write_corpus(folder)
    return write_recipe(folder, steps=STEPS, sequence_length=LENGTH, global_batch_size=BATCH), folder / "out"


def added_product(total, left, right, **settings):
    """FLOPs of a product that is added in place, which the counter does not know; arguments are shapes."""
    return 2 * left[0] * left[1] * right[1]


@pytest.fixture
def counters(monkeypatch):
    """FLOPs of each training: steps with all that belongs to them, without evaluations."""
    counted = []
    original = DoReMiTrainer.train

    def train(self, *arguments, **settings):
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added_product}) as counter:
            result = original(self, *arguments, **settings)
        counted.append(counter.get_total_flops())
        return result

    monkeypatch.setattr(DoReMiTrainer, "train", train)
    monkeypatch.setattr(HeldOutCurve, "on_step_end", lambda *arguments, **settings: None)
    return counted


def expected(experiment, folder, *, num_passes=3, num_proxies=1):
    """FLOPs of the plan by stage, less those of the last position of each row.

    It has no target: the output matrix meets one token fewer than the code of the model, which is planned by, says.
    """
    loaded, store = experiment.recipe, experiment.store
    sizes = {
        run: measure(getattr(loaded.models, run), name=run, sequence_length=LENGTH, vocab_size=store.vocab_size)
        for run in RUNS
    }
    made = inputs.make(loaded, folder, sizes=sizes, num_devices=1, store=store)
    found = {stage.name: stage.flops for stage in stages.plan(made).stages}
    head = 2 * WIDTH * store.vocab_size
    return [
        found["reference"] - 3 * ROWS * head,
        found["proxy"] - (num_passes * num_proxies + 1) * ROWS * head,
    ]


def search(experiment):
    """Train what the methods ask for."""
    for item in experiment.recipe.named_methods:
        ledger.train(experiment, imagined.asked(item.method, experiment.bench))


@pytest.fixture
def opened(corpus):
    path, out = corpus

    def open_with(*settings):
        models = f"models={yaml.safe_dump(MODELS, default_flow_style=True, width=10**6)}"
        first = open_experiment(recipe.load(path), out)
        changed = recipe.load(path, [models, *settings])
        folder = RunDirectory(out.parent / files.digest_json(list(settings))[:8])
        return replace(first, recipe=changed, directory=folder)

    return open_with


@pytest.mark.parametrize(
    ("micro_batch_size", "update", "num_passes"),
    [(6, "exact", 3), (2, "exact", 4), pytest.param(2, "delayed", 3, marks=pytest.mark.slow)],
)
def test_training_measuring_and_the_reference(opened, counters, tmp_path, micro_batch_size, update, num_passes):
    experiment = opened(f"training.micro_batch_size={micro_batch_size}", f"methods.doremi.weights_update={update}")
    planned = expected(experiment, tmp_path, num_passes=num_passes)
    search(experiment)
    assert counters == planned


def test_stored_losses_are_computed_once(opened, counters, tmp_path):
    """Two adversaries of one seed draw the same rows: the second one's proxy reads what the first one's stored."""
    entries = [{"doremi": {"reference_cache": True, "step_size": size}, "label": f"step {size}"} for size in (1, 0.5)]
    experiment = opened("training.micro_batch_size=2", f"methods={yaml.safe_dump(entries, default_flow_style=True)}")
    reference, proxies = expected(experiment, tmp_path, num_proxies=2, num_passes=4)
    search(experiment)
    scored = counters[1] - counters[2]
    assert counters[0] == reference
    assert sum(counters[1:]) == round(proxies)  # what is drawn of each domain is an expectation
    assert scored == counters[0] / 3  # a forward pass of every row, and none
