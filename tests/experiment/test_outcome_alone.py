"""Runs whose model is not kept: the outcome of a kept one to the last bit, and nothing else on the disk."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from doremi import files
from doremi.errors import InputError, NotFiniteError, RunFailedError
from doremi.experiment import ledger, recipe, scoring
from doremi.experiment.opening import open_experiment
from doremi.experiment.run_directory import RunDirectory
from doremi.experiment.shared import MAX_HELD_OUT, Shared
from doremi.methods.group_dro import GroupDRO
from doremi.methods.protocol import Run, content
from doremi.models.probes import Probe
from doremi.training import timed_saving
from doremi.training.trainer import DoReMiTrainer
from doremi.weights import DomainWeights, uniform
from tests.end_to_end.conftest import write_corpus, write_recipe
from tests.end_to_end.toys import TowardsLoss

OUTCOME = {"complete.json", "history.json", "held_out.parquet"}
STEPS = 6


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swarm")
    write_corpus(folder)
    path = write_recipe(folder, steps=STEPS, eval_steps=2, save_steps=2, logging_steps=1)
    return path, open_experiment(recipe.load(path), folder / "out")


@pytest.fixture
def experiment(prepared, tmp_path):
    return replace(prepared[1], directory=RunDirectory(tmp_path), shared=Shared())


def changed(prepared, experiment, *settings):
    return replace(experiment, recipe=recipe.load(prepared[0], list(settings)))


def names(experiment):
    return experiment.bench.names


def train(experiment, run):
    [outcome] = ledger.train(experiment, [run])
    return outcome


def folder(experiment, run):
    return ledger.training_run(experiment, run).folder


def assert_equal(one, other):
    assert one.history == other.history
    assert one.realised == other.realised
    assert one.nats == other.nats
    assert one.documents.keys() == other.documents.keys()
    for name, losses in one.documents.items():
        np.testing.assert_array_equal(losses.nats, other.documents[name].nats)
        np.testing.assert_array_equal(losses.num_tokens, other.documents[name].num_tokens)


# ---- the outcome ----


@pytest.mark.parametrize("kind", ["plain", "moved", "doremi"])
def test_it_is_that_of_the_kept_run_to_the_last_bit(experiment, kind):
    run = Run("proxy", 3, uniform(names(experiment)), policy=TowardsLoss() if kind == "moved" else None)
    if kind == "doremi":
        run = replace(run, policy=GroupDRO(), reference=Run("reference", 1, uniform(names(experiment))))
        ledger.train(experiment, [run.reference])
    kept, alone = ledger.train(experiment, [run, replace(run, keep=False)])
    scored = scoring.score(experiment, ledger.training_run(experiment, run), scoring.held_out_set(experiment))
    nats = {name: losses.nats.sum() / losses.num_tokens.sum() for name, losses in scored.items()}
    assert_equal(alone, replace(kept, documents=scored, nats=nats))
    assert len(alone.nats) == 3
    if kind == "plain":
        assert alone.state is kept.state is None
    else:
        assert files.digest_json(content(alone.state)) == files.digest_json(content(kept.state))
        assert files.digest_json(content(kept.state)) != files.digest_json(content(run.policy.init(experiment.bench)))
    first, second = (files.read_marker(folder(experiment, each)) for each in (run, replace(run, keep=False)))
    for marker in (first, second):
        del marker["digest"], marker["files"], marker["train_seconds"]
    assert first == second


def test_nothing_else_is_in_its_folder_and_another_process_reads_it(experiment):
    run = Run("proxy", 0, uniform(names(experiment)), keep=False)
    outcome = train(experiment, run)
    assert {path.name for path in folder(experiment, run).iterdir()} == OUTCOME
    assert sum(path.stat().st_size for path in folder(experiment, run).iterdir()) < 10_000
    assert_equal(ledger.outcome(replace(experiment, shared=Shared()), run), outcome)


def test_a_changed_loss_is_seen(experiment):
    run = Run("proxy", 0, uniform(names(experiment)), keep=False)
    train(experiment, run)
    path = folder(experiment, run) / "held_out.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(RunFailedError, match=r"held_out.parquet has other content than was saved"):
        ledger.outcome(experiment, run)


def test_a_kept_run_is_not_served_by_one_that_is_not(experiment):
    run = Run("proxy", 0, uniform(names(experiment)), keep=False)
    train(experiment, run)
    kept = replace(run, keep=True)
    assert run != kept
    assert ledger.outcome(experiment, kept) is None
    train(experiment, kept)
    assert (folder(experiment, kept) / "model.safetensors").is_file()
    assert folder(experiment, kept) != folder(experiment, run)


def test_what_is_scored_is_part_of_it(prepared, experiment):
    """With another cap the model that is gone cannot be scored again; one that is kept can."""
    other = changed(prepared, experiment, "evaluation.max_tokens_per_domain=100")
    other = replace(other, recipe=other.recipe.model_copy(update={"evaluation": other.recipe.evaluation.model_copy(
        update={"max_tokens_during_training": experiment.recipe.evaluation.max_tokens_per_domain})}))  # fmt: skip
    run = Run("proxy", 0, uniform(names(experiment)))
    assert folder(other, run) == folder(experiment, run)
    alone = replace(run, keep=False)
    assert folder(other, alone) != folder(experiment, alone)
    first, second = train(experiment, alone), train(other, alone)
    assert first.history == second.history
    assert [losses.num_tokens.sum() for losses in second.documents.values()] == [100] * 3


def test_a_reference_has_to_be_kept(experiment):
    weights = uniform(names(experiment))
    with pytest.raises(InputError, match=r"run 'p': its reference 'r' is not kept, .* with keep=True"):
        Run("proxy", 0, weights, reference=Run("proxy", 0, weights, keep=False, label="r"), label="p")


# ---- killed ----


class Killed(Exception):
    """What a kill is to a process that is not there any more."""


def killed_at(monkeypatch, step):
    original = DoReMiTrainer._optimizer_step

    def kill(self, batches):
        if self.state.global_step == step:
            raise Killed
        return original(self, batches)

    monkeypatch.setattr(DoReMiTrainer, "_optimizer_step", kill)


@pytest.mark.parametrize(("seconds", "saved"), [(300.0, []), (0.0, [1, 2, 3, 4])])
def test_killed_it_ends_the_same_from_the_start_or_from_what_was_saved(
    experiment, monkeypatch, caplog, tmp_path, seconds, saved
):
    """Steps of ``save_steps`` (2) save nothing; time does."""
    run = Run("proxy", 5, uniform(names(experiment)), policy=TowardsLoss(), keep=False)
    whole = train(replace(experiment, directory=RunDirectory(tmp_path / "whole")), run)
    monkeypatch.setattr(timed_saving, "SECONDS", seconds)
    with monkeypatch.context() as patched:
        killed_at(patched, step=4)
        with pytest.raises(Killed):
            train(experiment, run)
    found = sorted(path.name for path in folder(experiment, run).glob("checkpoint-*"))
    assert found == [f"checkpoint-{step}" for step in saved[-2:]]  # save_total_limit
    with caplog.at_level(logging.INFO, logger="doremi"):
        again = train(experiment, run)
    assert ("continuing from step 4" in caplog.text) == bool(saved)
    assert_equal(again, whole)
    assert {path.name for path in folder(experiment, run).iterdir()} == OUTCOME


def test_one_that_fails_leaves_its_reason_alone(experiment, monkeypatch):
    def fail(self, batches):
        raise NotFiniteError("step 1: the loss is nan")

    monkeypatch.setattr(DoReMiTrainer, "_optimizer_step", fail)
    run = Run("proxy", 0, uniform(names(experiment)), keep=False)
    assert train(experiment, run).failure == "step 1: the loss is nan"
    assert {path.name for path in folder(experiment, run).iterdir()} == {"failed.json"}


# ---- what runs share ----


@pytest.fixture
def probed(monkeypatch):
    """(configuration, documents) of the models that were probed themselves; small copies have fewer words."""
    seen, original = [], Probe.check

    def check(self, *, documents):
        if self.vocab_size > 64:
            seen.append((self.model.config.model_type, self.model.config.hidden_size, documents))
        original(self, documents=documents)

    monkeypatch.setattr(Probe, "check", check)
    return seen


def test_every_kind_of_model_is_probed_and_none_twice(prepared, experiment, probed):
    runs = [Run("proxy", seed, uniform(names(experiment)), steps=1, keep=False) for seed in range(2)]
    ledger.train(experiment, runs)
    assert probed == [("llama", 16, "joined")]
    for settings in (
        ["training.documents=separate"],
        ["models.proxy.overrides={hidden_size: 32, intermediate_size: 24}"],
        ["training.documents=separate"],
    ):
        runs = [replace(run, seed=run.seed + 2) for run in runs]
        ledger.train(changed(prepared, experiment, *settings), runs)
    assert probed[1:] == [("llama", 16, "separate"), ("llama", 32, "joined")]


def test_kept_models_are_always_probed(experiment, probed):
    ledger.train(experiment, [Run("proxy", seed, uniform(names(experiment)), steps=1) for seed in range(2)])
    assert len(probed) == 2


def test_a_kind_that_fails_is_probed_again(experiment, monkeypatch):
    def refuse(self, *, documents):
        raise InputError("is not causal")

    run = Run("proxy", 0, uniform(names(experiment)), steps=1, keep=False)
    with monkeypatch.context() as patched:
        patched.setattr(Probe, "check", refuse)
        for _ in range(2):
            with pytest.raises(InputError, match="is not causal"):
                train(experiment, run)
    assert train(experiment, run).failure is None


def test_a_proxy_that_is_measured_is_probed_for_noise_though_a_plain_one_passed(experiment, monkeypatch):
    weights, seen = uniform(names(experiment)), []
    monkeypatch.setattr(Probe, "check_repeatable", lambda self, *, already_off: seen.append(already_off))
    plain = Run("proxy", 0, weights, steps=1, keep=False)
    reference = Run("reference", 0, weights, steps=1)
    ledger.train(experiment, [plain, reference])
    assert seen == []
    compared = [replace(plain, seed=seed, policy=GroupDRO(), reference=reference) for seed in range(2)]
    ledger.train(experiment, compared)
    assert len(seen) == 1


def test_windows_are_cut_once_for_each_length_and_cap_and_few_are_kept(experiment, monkeypatch):
    from doremi.evaluation import perplexity

    cut, original = [], perplexity.collect

    def collect(store, names, **settings):
        cut.append(settings["sequence_length"])
        return original(store, names, **settings)

    monkeypatch.setattr(perplexity, "collect", collect)
    shared, store = Shared(), experiment.store
    for length in (8, 8, 16):
        found = shared.held_out(store, names(experiment), length=length, cap=50)
        assert max(len(window.inputs) for windows in found.windows for window in windows) == length
    assert cut == [8, 16]
    assert shared.held_out(store, names(experiment), length=8, cap=None).num_tokens.min() > 50
    for length in range(20, 20 + MAX_HELD_OUT):
        shared.held_out(store, names(experiment), length=length, cap=50)
    assert len(shared._held_out) == MAX_HELD_OUT
    shared.held_out(store, names(experiment)[:2], length=23, cap=50)
    assert cut[-1] == 23


def test_weights_of_runs_are_their_own(experiment):
    """Runs of one process share no data order: other weights draw other rows."""
    prior = DomainWeights({"prose": 4, "code": 1, "junk": 1})
    runs = [Run("proxy", 0, weights, keep=False) for weights in (uniform(names(experiment)), prior)]
    one, other = ledger.train(experiment, runs)
    assert one.realised == {"code": 12, "junk": 12, "prose": 12}
    assert other.realised == {"code": 6, "junk": 6, "prose": 24}
