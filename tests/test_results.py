"""``results.json`` of a made-up experiment: every number worked out from the losses by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from doremi.evidence.paired_documents import DocumentLosses
from doremi.experiment import costs, planned_runs, results, scoring
from doremi.experiment.learning_curves import learning_curve, mean_curve, trajectory
from doremi.models import size as model_size
from tests import made_up
from tests.made_up import PARAMETERS

ANSWER = {"a": 0.595, "b": 0.4, "c": 0.005}  # c is at the floor
LENGTH = 8
TOKENS = 30 * 6 * LENGTH  # of a run
# nats per token of a, b, c with the seeds 7, 8, 9; the worst domain of the baseline is not the same in every seed
NATS = {
    "baseline": ([3.0, 2.0, 5.0], [3.1, 2.0, 3.0], [3.2, 2.3, 4.3]),
    "main": ([2.9, 1.8, 5.2], [2.9, 1.9, 5.1], [3.1, 1.9, 5.3]),
    "uniform": ([3.3, 2.2, 3.9], [3.2, 2.1, 4.1], [3.3, 2.0, 4.0]),
    "reference_without_floor": ([2.9, 1.9, 5.0], [3.0, 1.9, 3.0], [3.1, 2.1, 4.3]),
}
# the reference-weighted mean while training, at the steps 10, 20, 30
CURVES = {
    "baseline": (5.0, 4.0, 3.0),
    "main": (4.0, 3.0, 2.0),
    "uniform": (6.0, 4.0, 3.0),
    "reference_without_floor": (5.0, 4.0, 3.0),
}


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "score", made_up_losses)
    return finished(tmp_path)


def finished(folder, **sections):
    """After two rounds of two proxies, and every run that is compared."""
    made = made_up.make(folder, reweighting={"seeds": 2}, **sections)
    made_up.write_weights(made, ANSWER, rounds=2)
    for number in (1, 2):
        made_up.finish(made.directory.round(number, "reference"), train_seconds=4.0)
        for folder in planned_runs.proxy_folders(made, number).values():
            made_up.finish(folder, history=proxy_log(number), num_parameters=500, train_seconds=2.5)
    for item in planned_runs.comparisons(made):
        for seed, run in item.runs.items():
            history = [held_out_log(item.name, seed, step=step) for step in (10, 20, 30)]
            made_up.finish(run.folder, history=history, train_seconds=4.0 if item.name == "baseline" else float(seed))
    return made


def held_out_log(run, seed, *, step):
    """The reference-weighted mean is that of `CURVES`, the uniform mean is larger, in main by twice as much."""
    mean, spread = CURVES[run][step // 10 - 1] + 0.1 * (seed - 7), 0.2 if run == "main" else 0.1
    return {
        "step": step,
        "held_out_nats/a": mean - spread,
        "held_out_nats/b": mean + spread,
        "held_out_nats/c": mean + 3 * spread,
    }


def proxy_log(number):
    entry = {f"{key}/{name}": float(number) for key in ("dro_weights", "average_weights", "excess_losses")
             for name in "abc"}  # fmt: skip
    return [{"step": 5, **entry}, {"step": 10, **entry}]


def made_up_losses(experiment, run, held_out):
    """Two documents for a, two for b, one for c, as in the store; the losses per token are those of `NATS`."""
    name = "baseline" if run.folder.parts[-2] in ("01", "natural") else run.folder.parts[-2].replace("doremi", "main")
    of_domains = NATS[name][run.seed - 7]
    return {
        domain: DocumentLosses(np.array([1.0, 3.0]) * value, np.array([1, 3]))
        for domain, value in zip("abc", of_domains, strict=True)
    }


@pytest.fixture
def found(experiment):
    return results.collect_results(experiment, planned_runs.comparisons(experiment))


def test_summaries_are_means_over_seeds(found):
    for run in found["runs"]:
        seeds = NATS[run]
        assert found["uniform_mean_nats"][run] == pytest.approx(np.mean(seeds))
        assert found["reference_mean_nats"][run] == pytest.approx(np.mean(np.array(seeds) @ [0.6, 0.3, 0.1]))
        assert found["worst_nats"][run] == pytest.approx(np.mean(np.max(seeds, axis=1)))
        for index, name in enumerate("abc"):
            assert found["domains"][name]["nats"][run] == pytest.approx(np.mean(seeds, axis=0)[index])
    assert found["worst_nats"]["baseline"] == pytest.approx((5.0 + 3.1 + 4.3) / 3)
    assert found["worst_domain"] == {"baseline": "c", "main": "c", "uniform": "c"}
    second = found["runs"]["baseline"]["by_seed"]["8"]
    assert (second["worst_nats"], second["worst_domain"]) == (3.1, "a")
    assert second["uniform_mean_nats"] == pytest.approx(8.1 / 3)
    assert second["reference_mean_nats"] == pytest.approx(0.6 * 3.1 + 0.3 * 2.0 + 0.1 * 3.0)
    assert second["nats"] == pytest.approx({"a": 3.1, "b": 2.0, "c": 3.0})


def test_without_the_floor_the_weights_are_those_of_the_others(found):
    without = found["without_floor"]
    assert without["domains_at_floor"] == ["c"]
    main = np.array(NATS["main"])[:, :2]
    assert without["uniform_mean_nats"]["main"] == pytest.approx(main.mean())
    assert without["reference_mean_nats"]["main"] == pytest.approx(np.mean(main @ [2 / 3, 1 / 3]))
    assert without["worst_nats"]["main"] == pytest.approx(np.mean([2.9, 2.9, 3.1]))
    assert without["worst_domain"]["main"] == "a"


def test_without_is_absent_where_no_domain_is_at_the_floor(experiment):
    made_up.write_weights(experiment, {"a": 0.5, "b": 0.3, "c": 0.2})
    assert results.collect_results(experiment, planned_runs.comparisons(experiment))["without_floor"] is None


def test_domains_say_what_was_scored(found, experiment):
    held_out = {"a": 3, "b": 2, "c": 1}
    for name, domain in found["domains"].items():
        num_tokens = experiment.store.num_tokens(name, split="held_out") - held_out[name]
        num_bytes = experiment.store.num_bytes(name, split="held_out")
        assert domain["tokens"] == made_up.SIZES[name]
        assert (domain["held_out_tokens"], domain["held_out_documents"]) == (num_tokens, held_out[name])
        assert domain["reference_weight"] == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1}[name])
        assert domain["doremi_weight"] == pytest.approx(ANSWER[name])
        bits = domain["nats"]["main"] * num_tokens / num_bytes / math.log(2)
        assert domain["bits_per_byte"]["main"] == pytest.approx(bits)


def test_the_headline_is_main_minus_baseline(found):
    first = found["comparisons"][0]
    assert (first["tuned"], first["baseline"], first["seeds"]) == ("main", "baseline", [7, 8, 9])
    difference = np.mean(NATS["main"]) - np.mean(NATS["baseline"])
    assert first["summaries"]["uniform_mean"]["value"] == pytest.approx(difference)
    assert found["verdict"] == first["verdict"]["sentence"]
    assert (found["num_better"], found["num_worse"], found["num_domains"]) == (2, 1, 3)
    assert found["steps_to_match"] == pytest.approx(20.0)
    assert found["control"] is None
    pairs = [(one["tuned"], one["baseline"]) for one in found["comparisons"]]
    assert pairs == [("main", "baseline"), ("uniform", "baseline"), ("main", "uniform")]


def flops(experiment, model, *, tokens=TOKENS):
    """Training FLOPs, as the planner counts them."""
    size = model_size.measure(experiment.recipe, model, vocab_size=experiment.store.vocab_size)
    return size.training_flops(LENGTH) * tokens / LENGTH


def scoring_flops(experiment, *, tokens=TOKENS):
    """A third of training: the reference's forward passes."""
    return flops(experiment, "reference", tokens=tokens) / 3


def test_only_the_answer_pays_for_the_search(found, experiment):
    search = found["cost"]["search"]["reference"] + found["cost"]["search"]["proxy"]
    per_step = flops(experiment, "main") / 30
    main, uniform, against_uniform = (one["speed_up"] for one in found["comparisons"])
    assert main["flops_to_match"]["value"] == pytest.approx(20 * per_step)
    assert main["factor_with_search"]["value"] == pytest.approx(30 * per_step / (20 * per_step + search))
    assert (uniform["factor"]["value"], uniform["factor_with_search"]["value"]) == (1.0, 1.0)  # for nothing
    assert against_uniform["factor_with_search"]["value"] == main["factor_with_search"]["value"]
    assert found["cost"]["main"] == flops(experiment, "main")
    assert found["cost"]["total"] == pytest.approx(search + flops(experiment, "main"))


def test_runs_are_described(found, experiment):
    baseline = found["runs"]["baseline"]
    assert (baseline["weights"], baseline["seed"], baseline["seeds"]) == ("natural", 7, [7, 8, 9])
    assert baseline["folder"] == baseline["by_seed"]["7"]["folder"] == "rounds/01/reference"
    assert baseline["by_seed"]["9"]["folder"] == "runs/natural/seed-9"
    main = found["runs"]["main"]
    assert main["train_seconds"] == 7 + 8 + 9
    assert main["by_seed"]["8"]["train_seconds"] == 8
    assert (main["steps"], main["num_parameters"], main["num_tokens"]) == (30, PARAMETERS, TOKENS)
    assert main["flops"] == flops(experiment, "main")
    assert main["domain_weights"] == pytest.approx(ANSWER)


def test_convergence_is_of_the_whole_search(found):
    convergence = found["convergence"]
    assert convergence["max_change"] == pytest.approx(0.1)  # b, 0.3 to 0.4
    entropy = -sum(weight * math.log(weight) for weight in ANSWER.values())
    assert convergence["effective_num_domains"] == pytest.approx(math.exp(entropy))
    assert (convergence["status"], convergence["changes"]) == ("done", [0.4, 0.4])
    assert found["trajectory"]["dro_weights"]["a"] == [2.0, 2.0]  # of the last round


def test_starvation_is_told_by_the_seed_of_the_reference(found, experiment, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        results.diagnostics,
        "check_starvation",
        lambda answer, reference, **nats: seen.update(nats) or [],
    )
    results.collect_results(experiment, planned_runs.comparisons(experiment))
    assert list(seen["reference_nats"].values()) == pytest.approx(NATS["baseline"][0])
    assert list(seen["uniform_nats"].values()) == pytest.approx(NATS["uniform"][0])


def test_the_alarm_of_starvation_joins_those_of_the_search(experiment, monkeypatch):
    alarm = results.diagnostics.Alarm("starvation", "c", "more of it")
    monkeypatch.setattr(results.diagnostics, "check_starvation", lambda *weights, **nats: [alarm])
    assert results.collect_results(experiment, planned_runs.comparisons(experiment))["alarms"] == [alarm._asdict()]


def test_the_control_explains_a_share_of_the_gain(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "score", made_up_losses)
    gains = {  # of the baseline over the control and over main, in the uniform mean
        run: [np.mean(before) - np.mean(after) for before, after in zip(NATS["baseline"], NATS[run], strict=True)]
        for run in ("reference_without_floor", "main")
    }
    monkeypatch.setitem(NATS, "main", tuple([value - 5 for value in seed] for seed in NATS["main"]))
    experiment = finished(tmp_path, weights={"baselines": ["reference_without_floor"]})
    control = results.collect_results(experiment, planned_runs.comparisons(experiment))["control"]
    share = np.mean(gains["reference_without_floor"]) / (np.mean(gains["main"]) + 5)
    assert control["uniform_mean"]["share"]["value"] == pytest.approx(share)


def test_it_is_json(found):
    assert json.loads(json.dumps(found, allow_nan=False))["format"] == 1
    assert found["provenance"]["corpus_digest"] == "corpus-1"
    assert found["tasks"] is None


def test_the_search_is_all_rounds_and_seeds(experiment):
    search = {"rounds": {"weights": [ANSWER, ANSWER]}}
    found = costs.search_costs(experiment, search)
    assert found["proxy"] == {
        "train_seconds": 4 * 2.5,
        "num_parameters": 500,
        "num_tokens": 4 * TOKENS,
        "flops": pytest.approx(
            flops(experiment, "proxy", tokens=4 * TOKENS) + scoring_flops(experiment, tokens=4 * TOKENS)
        ),
    }
    # the first round's reference is the baseline
    assert found["reference"] == {
        "train_seconds": 4.0, "num_parameters": PARAMETERS, "num_tokens": TOKENS,
        "flops": flops(experiment, "reference"),
    }  # fmt: skip
    assert costs.search_costs(experiment, {"rounds": {"weights": [ANSWER]}}).keys() == {"proxy"}


def test_the_search_has_the_flops_of_every_reference(experiment):
    """Also of the one that is the baseline: without it there are no weights."""
    search = {"rounds": {"weights": [ANSWER, ANSWER]}}
    found = costs.search_flops(experiment, search)
    assert found == {
        "reference": 2 * flops(experiment, "reference"),
        "proxy": costs.search_costs(experiment, search)["proxy"]["flops"],
    }


def finished_search(folder, **sections):
    experiment = made_up.make(folder, **sections)
    for model in ("reference", "proxy"):
        made_up.finish(experiment.directory.round(1, model))
    return experiment, costs.search_costs(experiment, {"rounds": {"weights": [ANSWER]}})


def test_a_reference_of_another_size_is_part_of_the_search(tmp_path):
    small = {"reference": {"preset": "tiny", "overrides": {"hidden_size": 16}}, "proxy": "tiny", "main": "tiny"}
    experiment, found = finished_search(tmp_path, models=small)
    assert found["reference"]["flops"] == flops(experiment, "reference") < flops(experiment, "proxy")
    expected = flops(experiment, "proxy") + scoring_flops(experiment)
    assert found["proxy"]["flops"] == pytest.approx(expected)


def test_a_trained_reference_costs_its_forward_passes(tmp_path):
    config = model_size.measure(made_up.make(tmp_path / "any").recipe, "reference", vocab_size=300)
    (tmp_path / "model").mkdir()
    from doremi.models import loading

    recipe = made_up.make(tmp_path / "other").recipe
    loading.configure(recipe.models.reference, vocab_size=300, eos_token_id=0, sequence_length=8).save_pretrained(
        tmp_path / "model"
    )
    experiment = made_up.make(
        tmp_path / "run", models={"reference": {"path": str(tmp_path / "model"), "init": "trained"}}
    )
    made_up.finish(experiment.directory.round(1, "proxy"))
    found = costs.search_costs(experiment, {"rounds": {"weights": [ANSWER]}})
    assert found.keys() == {"proxy"}
    expected = flops(experiment, "proxy") + config.forward_flops(LENGTH) * TOKENS / LENGTH
    assert found["proxy"]["flops"] == pytest.approx(expected)


def test_the_hardest_objective_asks_no_reference(tmp_path):
    experiment, found = finished_search(tmp_path, reweighting={"objective": "hardest"})
    assert found["proxy"]["flops"] == flops(experiment, "proxy")


def test_curves_are_means_over_seeds(found):
    curve = found["curves"]["main"]
    assert curve["steps"] == [10, 20, 30]
    assert curve["nats"]["b"] == pytest.approx([4.3, 3.3, 2.3])
    for key in ("uniform_mean_nats", "reference_mean_nats", "worst_nats"):
        more = {"uniform_mean_nats": 0.2, "reference_mean_nats": 0.0, "worst_nats": 0.6}[key]
        assert curve[key] == pytest.approx([4.1 + more, 3.1 + more, 2.1 + more])
        assert curve["by_seed"]["9"][key] == pytest.approx([4.2 + more, 3.2 + more, 2.2 + more])


def test_a_learning_curve_has_the_summaries_of_each_point(tmp_path):
    experiment = made_up.make(tmp_path)
    run = planned_runs.reference_run(experiment, 1, experiment.reference_weights)
    log = [{"step": 5, "held_out_nats/a": 1.0, "held_out_nats/b": 2.0, "held_out_nats/c": 6.0},
           {"step": 9, "held_out_nats/a": 4.0, "held_out_nats/b": 2.0, "held_out_nats/c": 3.0}]  # fmt: skip
    made_up.finish(run.folder, history=log)
    curve = learning_curve(run, dict(experiment.reference_weights))
    assert curve["steps"] == [5, 9]
    assert curve["uniform_mean_nats"] == [3.0, 3.0]
    assert curve["reference_mean_nats"] == pytest.approx([1.8, 3.3])
    assert curve["worst_nats"] == [6.0, 4.0]
    assert mean_curve({7: curve}) == curve


@pytest.mark.parametrize(("num_logged", "stride"), [(3, 1), (500, 1), (501, 2), (1001, 3)])
def test_a_long_trajectory_is_thinned_and_keeps_its_last_step(num_logged, stride):
    history = [
        {"step": 10 * index, "dro_weights/a": index, "average_weights/a": 2 * index, "excess_losses/a": 3 * index}
        for index in range(1, num_logged + 1)
    ]
    found = trajectory([*history, {"step": 5, "loss": 1.0}], ["a"])
    assert found["steps"][-1] == 10 * num_logged
    assert len(found["steps"]) == math.ceil(num_logged / stride) <= 500
    assert set(np.diff(found["steps"])) == {10 * stride}
    last = (found["dro_weights"]["a"][-1], found["average_weights"]["a"][-1], found["excess_losses"]["a"][-1])
    assert last == (num_logged, 2 * num_logged, 3 * num_logged)


def test_the_largest_change_may_be_a_loss_of_weight():
    search = {"rounds": {"status": "done", "changes": []}, "spread": None}
    found = results._convergence(search, {"a": 0.3, "b": 0.5, "c": 0.2}, {"a": 0.6, "b": 0.3, "c": 0.1})
    assert found["max_change"] == pytest.approx(0.3)


def test_the_same_loss_is_neither_better_nor_worse(experiment, monkeypatch):
    same = tuple(
        [*main[:1], *before[1:2], *main[2:]] for main, before in zip(NATS["main"], NATS["baseline"], strict=True)
    )
    monkeypatch.setitem(NATS, "main", same)
    found = results.collect_results(experiment, planned_runs.comparisons(experiment))
    assert (found["num_better"], found["num_worse"]) == (1, 1)  # a and c


@pytest.mark.parametrize("unknown", [("reference",), ("main",), ("reference", "proxy", "main")])
def test_what_is_not_known_of_flops_is_null(experiment, monkeypatch, unknown):
    """Everything is trained by then: an accounting figure fails nothing, and is no made-up number either."""
    from dataclasses import replace

    from doremi.evidence.recorded_results import parse
    from doremi.report import sentences, views

    measure = model_size.measure

    def measured(recipe, run, *, vocab_size):
        size = measure(recipe, run, vocab_size=vocab_size)
        return replace(size, forward_flops=lambda length: math.nan) if run in unknown else size

    monkeypatch.setattr(model_size, "measure", measured)
    found = results.collect_results(experiment, planned_runs.comparisons(experiment))
    parsed = parse(json.loads(json.dumps(found, allow_nan=False)))
    assert (found["cost"]["main"] is None) == (found["runs"]["main"]["flops"] is None) == ("main" in unknown)
    assert found["cost"]["search_over_main"] is None
    assert (found["cost"]["search"]["proxy"] is None) == ("reference" in unknown)  # its forward passes
    saved = found["comparisons"][0]["speed_up"]
    assert saved["factor"]["value"] == pytest.approx(1.5)
    assert saved["factor_with_search"]["value"] is None
    assert (saved["flops_to_match"]["value"] is None) == ("main" in unknown)
    rows = {row.name: row.flops for row in views.cost_rows(parsed)}
    assert (rows["main"] is None) == ("main" in unknown)  # no estimate in its place
    assert sentences.cost(parsed) is sentences.cost_with_search(parsed) is None
