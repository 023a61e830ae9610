"""Rounds, proxy seeds, a trained reference and weights by rule, through the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from doremi import DomainWeights, files
from doremi.cli.main import main
from tests import trained
from tests.end_to_end.conftest import doremi

ROUNDS = {"rounds": 2, "seeds": 2, "reference_cache": True}


@pytest.fixture
def two_rounds(recipe):
    content = yaml.safe_load(recipe.read_text())
    content["training"] |= {"steps": 12, "eval_steps": 6, "save_steps": 4}
    content["methods"] = ["natural", {"doremi": ROUNDS}]
    recipe.write_text(yaml.safe_dump(content))
    return recipe


def provenance(out, name="weights.json"):
    return json.loads((out / name).read_text())["provenance"]


def test_two_rounds_of_two_proxies(tmp_path, two_rounds):
    out = tmp_path / "out"
    assert main(["search", str(two_rounds), "--out", str(out)]) == 0
    answer, told = DomainWeights.from_json(out / "weights.json"), provenance(out)
    by_round = [DomainWeights(weights) for weights in told["rounds"]["weights"]]
    assert dict(by_round[1]) == pytest.approx(dict(answer), abs=1e-15)
    # each answer is the mean over its proxies; the spread is their standard deviation
    for number, weights in enumerate(by_round, 1):
        in_round = "" if number == 1 else f", round {number}"
        labels = (f"proxy{in_round}", f"proxy{in_round}, seed 1")
        markers = [files.read_marker(trained.folder(out, label)) for label in labels]
        averages = np.array([np.array(m["objective"]["weights_sum"]) / 12 for m in markers])
        assert np.abs(averages[0] - averages[1]).max() > 1e-6
        np.testing.assert_allclose(list(weights.values()), averages.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(list(told["spread"].values()), averages.std(axis=0, ddof=1), rtol=1e-9)
    # the second reference was trained on the first answer
    drawn = files.read_marker(trained.folder(out, "reference, round 2"))["epochs"]
    counts = {domain["name"]: domain for domain in json.loads((out / "corpus/manifest.json").read_text())["domains"]}
    assert set(drawn) == set(counts)
    expected = {name: by_round[0][name] * 12 * 6 for name in drawn}
    rows = {name: drawn[name] * tokens // 1 for name, tokens in sequences(out).items()}
    assert {name: abs(rows[name] - expected[name]) < 2.01 for name in drawn} == dict.fromkeys(drawn, True)
    # what is said of the rounds
    start = DomainWeights(told["reference_weights"])
    changes = [max(abs(b[n] - a[n]) for n in a) for a, b in ((start, by_round[0]), (by_round[0], by_round[1]))]
    assert told["rounds"]["changes"] == pytest.approx(changes)
    assert told["rounds"]["status"] in ("converged", "oscillating", "stopped at the maximum")


def sequences(out):
    from doremi.corpus import TokenStore

    store = TokenStore.open(out / "corpus")
    return {name: store.num_sequences(name, 32) for name in store.names}


@pytest.mark.slow
def test_killed_in_the_second_round_it_ends_the_same(tmp_path, two_rounds):
    arguments = ["search", two_rounds, "--out"]
    assert doremi(*arguments, tmp_path / "whole")[0] == 0
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "doremi", *map(str, arguments), str(killed)], stderr=subprocess.DEVNULL
    )
    while not list(killed.glob("runs/proxy-round-2-*/checkpoint-4")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "weights.json").exists()
    code, _, stderr = doremi(*arguments, killed)
    assert code == 0, stderr
    assert "reference: finished earlier, skipped" in stderr
    assert (killed / "weights.json").read_bytes() == (tmp_path / "whole" / "weights.json").read_bytes()


def test_auto_stops_when_a_round_changes_nothing(tmp_path, capsys, two_rounds):
    out = tmp_path / "out"
    settings = ["--set", "methods.doremi.rounds=auto", "--set", "methods.doremi.tolerance=0.9"]
    assert main(["search", str(two_rounds), "--out", str(out), *settings]) == 0
    assert trained.names(out) == {"reference", "proxy", "proxy-seed-1"}
    assert provenance(out)["rounds"]["status"] == "converged"
    assert main(["weights", "show", str(out / "weights.json")]) == 0
    assert "rounds: converged; largest change of each" in capsys.readouterr().out


def test_a_trained_model_as_the_reference_gives_the_weights_of_the_run_that_trained_it(tmp_path, two_rounds):
    one = ["--set", "methods.doremi.rounds=1", "--set", "methods.doremi.seeds=1"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["search", str(two_rounds), "--out", str(first), *one]) == 0
    reference = trained.folder(first, "reference")
    given = [*one, "--set", f"models.reference={{path: {reference}, init: trained}}"]
    given += ["--set", f"corpus.tokenizer.path={first / 'corpus/tokenizer'}"]
    assert main(["search", str(two_rounds), "--out", str(second), *given]) == 0
    assert trained.names(second) == {"proxy"}
    again = DomainWeights.from_json(second / "weights.json")
    assert dict(again) == dict(DomainWeights.from_json(first / "weights.json"))


def test_a_reference_of_another_tokenizer_is_refused(tmp_path, capsys, two_rounds):
    first = tmp_path / "first"
    assert main(["train", str(two_rounds), "--run", "reference", "--out", str(first)]) == 0
    reference = trained.folder(first, "reference")
    given = ["--set", "methods.doremi.rounds=1", "--set", f"models.reference={{path: {reference}, init: trained}}"]
    given += ["--set", "corpus.tokenizer.vocab_size=290", "--out", str(tmp_path / "second")]
    assert main(["search", str(two_rounds), *given]) == 2
    assert "losses of different tokens cannot be compared" in capsys.readouterr().err


def test_a_subset_in_another_order_and_unnormalised_is_the_sorted_normalised_one(tmp_path, two_rounds):
    answers = []
    for number, reference in enumerate(["{prose: 3, code: 1}", "{code: 0.25, prose: 0.75}"]):
        out = tmp_path / str(number)
        given = ["--set", f"prior={reference}", "--set", "methods.doremi.rounds=1"]
        assert main(["search", str(two_rounds), "--out", str(out), *given]) == 0
        answers.append(dict(DomainWeights.from_json(out / "weights.json")))
    assert answers[0] == answers[1]
    assert set(answers[0]) == {"prose", "code"}


def test_bounds_reach_the_adversary(tmp_path, two_rounds):
    out = tmp_path / "out"
    given = ["--set", "methods.doremi.rounds=1", "--set", "methods.doremi.max_weight={junk: 0.05}"]
    given += ["--set", "methods.doremi.min_weight=0.04"]
    assert main(["search", str(two_rounds), "--out", str(out), *given]) == 0
    answer = DomainWeights.from_json(out / "weights.json")
    assert 0.04 <= answer["junk"] <= 0.05 + 1e-12
    assert min(answer.values()) >= 0.04 - 1e-12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("methods.doremi.rounds=0", "doremi.rounds"),
        ("methods.doremi.max_weight={wiki: 0.5}", "doremi.max_weight: no such domain: 'wiki'"),
        ("methods.doremi.max_weight=0.2", "no weights between them sum to 1"),
        ("methods.doremi.prior_pull=0.1", "methods.1.doremi: prior and prior_pull go together"),
        ("models.proxy={path: x, init: trained}", "init: trained is for the reference"),
        ("models.reference={path: x, init: trained}", "doremi.rounds trains a reference in each round"),
        ("prior=temperature(x)", r"temperature takes a number, such as temperature(2), got 'x'"),
        ("prior=reference_without_floor", "is neither a file nor one of natural"),
        ("epochs={wiki: 2}", "epochs of 'wiki': no such domain"),
    ],
)
def test_refused(tmp_path, capsys, two_rounds, settings, message):
    assert main(["run", str(two_rounds), "--out", str(tmp_path / "out"), "--set", settings]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out/runs").exists()  # found before any training


def test_every_rule_can_be_compared_with(tmp_path, two_rounds):
    DomainWeights({"prose": 2, "code": 1, "junk": 1}).to_json(tmp_path / "mine.json")
    rules = [
        "uniform",
        "temperature(2)",
        "unimax",
        "natural(padded)",
        "reference_without_floor",
        str(tmp_path / "mine.json"),
    ]
    doremi = {"doremi": ROUNDS | {"rounds": 1}}
    given = ["--set", f"methods={['natural', *rules, doremi]}", "--set", "training.steps=4"]
    out = tmp_path / "out"
    assert main(["run", str(two_rounds), "--out", str(out), *given]) == 0
    results = json.loads((out / "results.json").read_text())
    assert {"natural", "doremi", "uniform", "temperature(2)", "mine"} <= set(results["arms"])
    search = results["searches"]["doremi"]
    told = provenance(out, "answers/doremi.json")
    assert search["convergence"]["changes"] == told["rounds"]["changes"]
    assert set(search["convergence"]["spread"]) == set(results["domains"])
    assert search["alarms"] == told["alarms"]
    proxies = [files.read_marker(trained.folder(out, label)) for label in ("proxy", "proxy, seed 1")]
    assert list(search["costs"]) == ["proxy"]  # the reference is the control's run too
    assert search["costs"]["proxy"]["num_tokens"] == sum(marker["num_tokens"] for marker in proxies)
    report = (out / "report.html").read_text()
    assert "Spread over seeds" in report
    assert (trained.folder(out, "temperature(2)") / "model.safetensors").exists()
