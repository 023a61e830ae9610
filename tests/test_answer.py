"""Rounds, seeds and alarms with proxies whose answers are made up: only the training is left out."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from doremi import DomainWeights, files
from doremi.experiment import planned_runs, recipe, search
from doremi.experiment.opening import Experiment
from doremi.experiment.run_directory import RunDirectory
from doremi.methods import group_dro

NAMES = ("web", "code", "books")
START = {"web": 0.5, "code": 0.3, "books": 0.2}


class Store:
    """A corpus by hand."""

    names = NAMES
    digest, tokenizer_digest = "corpus digest", "tokenizer digest"
    tokens = {"web": 40_000, "code": 20_000, "books": 1_000}  # noqa: RUF012

    def num_tokens(self, name):
        return self.tokens[name]


class Proxies:
    """Stands in for training: proxies give ``answer_of(reference weights, seed)``; remembers what was trained.

    Args:
        answer_of: float64[3] from float64[3] and a seed.
        early: ᾱ as logged after three quarters of the steps; absent: the answer, so that nothing drifts.
    """

    def __init__(self, answer_of, *, early=None):
        self.answer_of, self.early = answer_of, early
        self.references, self.folders = [], []

    def train(self, run, store):
        self.folders.append(run.folder.name)
        if run.reference is None:
            self.references.append(dict(run.sampling_weights))
            return
        reference = self.references[-1] if self.references else START
        found = self.answer_of(np.array([reference[name] for name in NAMES]), run.seed)
        state = group_dro.init(NAMES).to_dict() | {"num_updates": 4, "weights_sum": (4 * found).tolist()}
        averages = {3: found if self.early is None else np.array(self.early), 4: found}
        history = [
            {"step": step} | {f"average_weights/{name}": value for name, value in zip(NAMES, values, strict=True)}
            for step, values in averages.items()
        ]
        files.write_json(run.folder / "history.json", [{"step": 2, "loss": 3.0}, *history])
        files.write_marker(run.folder, {"objective": state})


@pytest.fixture
def find(tmp_path, monkeypatch):
    """``find(proxies, training={}, models={}, seed=0, **reweighting)``: the answer and the provenance of its file."""

    def run(proxies, *, training=(), models=(), seed=0, **reweighting):
        content = {
            "corpus": {"inputs": [{"path": "x"}]},
            # the main run: 2,000 tokens
            "training": {"steps": 10, "sequence_length": 20, "global_batch_size": 10} | dict(training),
            "models": dict(models),
            "reweighting": reweighting,
            "seed": seed,
        }
        experiment = Experiment(recipe.parse(content), RunDirectory(tmp_path), Store(), DomainWeights(START))
        monkeypatch.setattr(search.runs, "train", proxies.train)
        found = search.find_weights(experiment)
        assert dict(DomainWeights.from_json(tmp_path / "weights.json")) == dict(found)
        return dict(found), json.loads((tmp_path / "weights.json").read_text())["provenance"]

    return run


def around(fixed_point, *, gain):
    """Each round ends at ``gain`` times the distance of its reference from the fixed point."""
    return lambda reference, seed: fixed_point + gain * (reference - fixed_point)


FIXED = np.array([0.4, 0.35, 0.25])


def test_auto_stops_where_nothing_changes_any_more(find):
    proxies = Proxies(around(FIXED, gain=0.1))
    found, told = find(proxies, rounds="auto", max_rounds=9)
    assert told["rounds"]["status"] == "converged"
    assert told["rounds"]["changes"] == pytest.approx([0.09, 0.009, 0.0009])
    assert list(found.values()) == pytest.approx(FIXED + 0.001 * (np.array([*START.values()]) - FIXED))
    assert proxies.folders == ["reference", "proxy"] * 3
    assert proxies.references == [START, *told["rounds"]["weights"][:-1]]
    assert told["rounds"]["weights"][-1] == found


def test_auto_says_that_the_weights_oscillate(find, caplog):
    with caplog.at_level(logging.INFO):
        _, told = find(Proxies(around(FIXED, gain=-0.98)), rounds="auto", max_rounds=4)
    assert told["rounds"]["status"] == "oscillating"
    assert len(told["rounds"]["changes"]) == 4
    assert "round 4 of at most 4, with 1 proxy\n" in caplog.text
    assert "round 4: the largest change of a weight is 0.1864 (oscillating)" in caplog.text
    assert "round 1: the largest change of a weight is 0.1980\n" in caplog.text
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert warnings[0].startswith(
        "round 2: the weights do not settle: the largest change of each round is 0.1980, 0.19"
    )


def test_a_fixed_number_of_rounds_is_run_to_its_end(find, caplog):
    with caplog.at_level(logging.INFO):
        _, told = find(Proxies(around(FIXED, gain=0.0)), rounds=3, seeds=2, max_rounds=2, tolerance=1e-4)
    assert "round 2 of 3, with 2 proxies\n" in caplog.text
    assert told["rounds"]["changes"] == pytest.approx([0.1, 0, 0], abs=1e-15)
    assert told["rounds"]["status"] == "converged"


def test_a_wider_tolerance_ends_the_rounds_earlier(find):
    _, told = find(Proxies(around(FIXED, gain=0.1)), rounds="auto", tolerance=0.01)
    assert len(told["rounds"]["changes"]) == 2


def test_the_answer_is_the_mean_over_proxies_and_the_spread_their_standard_deviation(find, tmp_path):
    """0.1, 0.2 and 0.6 of web: mean 0.3, standard deviation √0.07."""
    web = {5: 0.1, 6: 0.2, 7: 0.6}
    proxies = Proxies(lambda _, seed: np.array([web[seed], 0.9 - web[seed], 0.1]))
    found, told = find(proxies, seeds=3, seed=5)
    assert found == pytest.approx({"web": 0.3, "code": 0.6, "books": 0.1}, abs=1e-15)
    assert told["spread"] == pytest.approx({"web": 0.07**0.5, "code": 0.07**0.5, "books": 0}, abs=1e-15)
    assert {seed: weights["web"] for seed, weights in told["by_seed"].items()} == pytest.approx(
        {"5": 0.1, "6": 0.2, "7": 0.6}
    )
    assert proxies.folders == ["reference", "proxy", "proxy-seed-6", "proxy-seed-7"]
    (of_round,) = (tmp_path / "rounds").glob("*/weights.json")
    assert of_round.parent.name == "01"
    content = json.loads(of_round.read_text())
    assert content["train_domain_weights"] == found
    assert content["provenance"] == {"round": 1, "by_seed": told["by_seed"]}


def test_spread_and_alarms_are_those_of_the_last_round(find, tmp_path):
    """Round 1: seeds far apart, nearly all on web. Round 2: 0.4 and 0.5 of web, a standard deviation of √0.005."""

    def answer_of(reference, seed):
        web = 0.4 + 0.1 * seed if reference[0] > 0.8 else 0.85 + 0.08 * seed
        return np.array([web, 0.9 * (1 - web), 0.1 * (1 - web)])

    found, told = find(Proxies(answer_of), rounds=2, seeds=2)
    assert found["web"] == pytest.approx(0.45)
    assert told["spread"]["web"] == pytest.approx(0.005**0.5)
    assert {seed: weights["web"] for seed, weights in told["by_seed"].items()} == pytest.approx({"0": 0.4, "1": 0.5})
    assert told["alarms"] == []
    by_round = [DomainWeights.from_json(tmp_path / f"rounds/0{number}/weights.json")["web"] for number in (1, 2)]
    assert by_round == pytest.approx([0.89, 0.45])


def test_processes_but_the_first_wait_for_these_very_weights(find, monkeypatch, tmp_path):
    """Those of an interrupted run with other settings may still lie there."""
    files.write_json(tmp_path / "weights.json", {"web": 1.0})
    held = []

    def wait_for(is_there, what):
        path = tmp_path / ("weights.json" if "rounds" not in what else "rounds/01/weights.json")
        held.append(is_there())
        DomainWeights(dict(zip(NAMES, FIXED, strict=True))).to_json(path, provenance={})
        held.append(is_there())

    monkeypatch.setattr(search.launch, "is_first", lambda: False)
    monkeypatch.setattr(search.launch, "wait_for", wait_for)
    find(Proxies(around(FIXED, gain=0.0)))
    assert held == [False, True, False, True]


def test_what_the_file_says_of_its_origin(find):
    _, told = find(Proxies(around(FIXED, gain=0.0)), step_size=0.5, seed=3)
    assert told["corpus_digest"] == "corpus digest"
    assert told["tokenizer_digest"] == "tokenizer digest"
    assert told["reference_weights"] == START
    assert told["reweighting"]["step_size"] == 0.5
    assert told["seed"] == 3
    assert told["spread"] is None
    assert told["alarms"] == []


def test_upstreams_average_counts_the_initial_weights(find):
    """(4 · 0.4 + 1/3) / 5, with upstream's normalisation of the loss alone."""
    found, _ = find(Proxies(around(FIXED, gain=0.0)), loss_normalisation="self_normalised")
    assert found == pytest.approx(dict(zip(NAMES, (4 * FIXED + 1 / 3) / 5, strict=True)), abs=1e-15)


def test_a_trained_reference_is_not_trained(find, monkeypatch, tmp_path):
    monkeypatch.setattr(planned_runs, "reference_folder", lambda experiment, number: tmp_path)
    proxies = Proxies(around(FIXED, gain=0.0))
    find(proxies, models={"reference": {"path": "mine", "init": "trained"}})
    assert proxies.folders == ["proxy"]


# ---- alarms ----


def alarms(told):
    return {alarm["name"]: alarm["finding"] for alarm in told["alarms"]}


def test_the_alarms_are_those_of_the_answer(find, caplog):
    """0.9 of the weight is on web; of books' 1,000 tokens the main run draws 180."""
    answers = np.array([0.9, 0.01, 0.09])
    _, told = find(Proxies(lambda *_: answers, early=[0.7, 0.2, 0.1]), training={"max_epochs": 0.1})
    found = alarms(told)
    assert set(found) == {"collapse", "drift", "repetition"}
    assert "0.90 of the weight is on 'web'" in found["collapse"]
    # the mean of the last step alone is 4 · 0.9 − 3 · 0.7 = 1.5: no weights, but the figures are easy to check
    assert "in steps 4 to 4 the weights differ from their average over all steps by 0.60" in found["drift"]
    assert "'books' 0.2 times" in found["repetition"]
    for name, finding in found.items():
        assert f"{name}: {finding}. What to do: " in caplog.text


def test_settled_and_even_weights_raise_none(find, caplog):
    _, told = find(Proxies(around(FIXED, gain=0.0)), training={"max_epochs": 0.51})
    assert told["alarms"] == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_repetition_counts_the_main_runs_own_steps(find):
    """A quarter of books in 2,000 tokens is half an epoch; with four times the steps, two."""
    overrides = {"main": {"steps": 40}, "proxy": {"max_epochs": 1e-3}}
    _, told = find(Proxies(around(FIXED, gain=0.0)), training={"overrides": overrides, "max_epochs": 1.9})
    assert alarms(told) == {
        "repetition": "the main run would see 1 of 3 domains more than 1.9 times: 'books' 2.0 times"
    }


def test_the_average_of_a_tail_is_not_checked_for_drift(find):
    _, told = find(Proxies(around(FIXED, gain=0.0), early=[0.9, 0.05, 0.05]), tail_fraction=0.5)
    assert told["alarms"] == []


def test_drift_is_that_of_the_last_round(find):
    """The first round moves to the answer from far away, and its log is not looked at."""
    proxies = Proxies(around(FIXED, gain=0.0), early=[0.9, 0.05, 0.05])
    train = proxies.train

    def settle_later(run, store):
        proxies.early = None if run.folder.parent.name == "02" else proxies.early
        train(run, store)

    proxies.train = settle_later
    _, told = find(proxies, rounds=2)
    assert told["alarms"] == []


def test_a_batch_that_cannot_hold_every_domain(find):
    overrides = {"proxy": {"global_batch_size": 2}}
    proxies = Proxies(around(FIXED, gain=0.0))
    _, told = find(proxies, training={"overrides": overrides}, allow_absent_domains=True)
    assert set(alarms(told)) == {"batch"}
