"""``results.json`` of a made-up experiment: every number worked out from the losses by hand."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from doremi.evidence.curves import mean_curve, summarised
from doremi.evidence.paired_documents import DocumentLosses
from doremi.evidence.results_file import parse
from doremi.evidence.targets import Targets
from doremi.experiment import answers, costs, ledger, results, scoring, search
from doremi.experiment.arms import arms
from doremi.experiment.learning_curves import learning_curve, trajectory
from doremi.methods.protocol import Run
from doremi.models import size as model_size
from doremi.report import sentences, views
from doremi.weights.alarm import Alarm
from tests import made_up, trained
from tests.made_up import PARAMETERS

FIRST = {"a": 0.595, "b": 0.38, "c": 0.025}  # of two rounds
ANSWER = {"a": 0.595, "b": 0.4, "c": 0.005}  # c is at the floor
LENGTH = 8
TOKENS = 30 * 6 * LENGTH  # of a run
# nats per token of a, b, c with the seeds 7, 8, 9; the worst domain of natural weights is not the same in every seed
NATS = {
    "natural": ([3.0, 2.0, 5.0], [3.1, 2.0, 3.0], [3.2, 2.3, 4.3]),
    "doremi": ([2.9, 1.8, 5.2], [2.9, 1.9, 5.1], [3.1, 1.9, 5.3]),
    "uniform": ([3.3, 2.2, 3.9], [3.2, 2.1, 4.1], [3.3, 2.0, 4.0]),
    "reference_without_floor": ([2.9, 1.9, 5.0], [3.0, 1.9, 3.0], [3.1, 2.1, 4.3]),
}
# the reference-weighted mean while training, at the steps 10, 20, 30
CURVES = {
    "natural": (5.0, 4.0, 3.0),
    "doremi": (4.0, 3.0, 2.0),
    "uniform": (6.0, 4.0, 3.0),
    "reference_without_floor": (5.0, 4.0, 3.0),
}


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "score", made_up_losses)
    return finished(tmp_path)


def finished(folder, *, answer=ANSWER, **sections):
    """After two rounds of two proxies, and every run that is compared."""
    made = made_up.make(folder, doremi={"rounds": 2, "seeds": 2}, **sections)
    of_proxies = {"num_parameters": 500, "train_seconds": 2.5}
    made_up.finish_search(made, FIRST, answer, proxy_log=proxy_log, train_seconds=4.0, proxy=of_proxies)
    for arm in compared(made):
        for seed, run in arm.asked.items() if arm.same_as is None else ():
            history = [held_out_log(arm.label, seed, step=step) for step in (10, 20, 30)]
            made_up.finish(made, run, history=history, train_seconds=4.0 if arm.label == "natural" else float(seed))
    return made


def compared(experiment):
    return arms(experiment, {label: each.answer for label, each in search.known(experiment).items()})


def held_out_log(arm, seed, *, step):
    """The reference-weighted mean is that of `CURVES`, the uniform mean is larger, in doremi by twice as much."""
    mean, spread = CURVES[arm][step // 10 - 1] + 0.1 * (seed - 7), 0.2 if arm == "doremi" else 0.1
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
    of_domains = NATS[run.name.partition(",")[0]][run.seed - 7]
    return {
        domain: DocumentLosses(np.array([1.0, 3.0]) * value, np.array([1, 3]))
        for domain, value in zip("abc", of_domains, strict=True)
    }


def collect(experiment):
    return results.collect_results(experiment, search.known(experiment), compared(experiment))


@pytest.fixture
def found(experiment):
    return collect(experiment)


def test_summaries_are_means_over_seeds(found):
    assert list(found.arms) == ["natural", "doremi", "uniform"]
    for label, arm in found.arms.items():
        seeds = NATS[label]
        assert arm.summary("uniform_mean") == pytest.approx(np.mean(seeds))
        assert arm.summary("reference_mean") == pytest.approx(np.mean(np.array(seeds) @ [0.6, 0.3, 0.1]))
        assert arm.summary("worst") == pytest.approx(np.mean(np.max(seeds, axis=1)))
        for index, name in enumerate("abc"):
            assert arm.mean_nats(name) == pytest.approx(np.mean(seeds, axis=0)[index])
    natural = found.arms["natural"]
    assert natural.summary("worst") == pytest.approx((5.0 + 3.1 + 4.3) / 3)
    assert {arm.worst_domain for arm in found.arms.values()} == {"c"}
    second = {key: values[1] for key, values in natural.summaries.items()}
    assert second == pytest.approx(
        {"uniform_mean": 8.1 / 3, "reference_mean": 0.6 * 3.1 + 0.3 * 2.0 + 0.1 * 3.0, "worst": 3.1}
    )
    assert {name: values[1] for name, values in natural.nats.items()} == pytest.approx({"a": 3.1, "b": 2.0, "c": 3.0})


def test_without_the_floor_the_weights_are_those_of_the_others(found):
    floor = found.searches["doremi"].floor
    assert floor.domains == ["c"]
    doremi = np.array(NATS["doremi"])[:, :2]
    assert floor.summaries["doremi"]["uniform_mean"] == pytest.approx(doremi.mean())
    assert floor.summaries["doremi"]["reference_mean"] == pytest.approx(np.mean(doremi @ [2 / 3, 1 / 3]))
    assert floor.summaries["doremi"]["worst"] == pytest.approx(np.mean([2.9, 2.9, 3.1]))


def test_the_floor_is_absent_where_no_domain_is_at_it(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "score", made_up_losses)
    experiment = finished(tmp_path, answer={"a": 0.5, "b": 0.3, "c": 0.2})
    assert collect(experiment).searches["doremi"].floor is None


def test_domains_and_sets_say_what_was_scored(found, experiment):
    held_out = {"a": 3, "b": 2, "c": 1}
    for name, domain in found.domains.items():
        num_tokens = experiment.store.num_tokens(name, split="held_out") - held_out[name]
        num_bytes = experiment.store.num_bytes(name, split="held_out")
        assert domain.tokens == made_up.SIZES[name]
        text = found.sets[name]
        assert (text.tokens, text.bytes, text.documents) == (num_tokens, num_bytes, held_out[name])
        assert text.trained_on
        assert domain.prior == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1}[name])
        assert found.arms["doremi"].weights[name] == pytest.approx(ANSWER[name])
        bits = found.arms["doremi"].mean_nats(name) * num_tokens / num_bytes / math.log(2)
        assert found.arms["doremi"].bits_per_byte[name] == pytest.approx(bits)


def test_the_headline_is_doremi_minus_the_control(found):
    first = found.comparisons[0]
    assert found.headline == first
    assert (first.tuned, first.baseline, first.seeds) == ("doremi", "natural", [7, 8, 9])
    difference = np.mean(NATS["doremi"]) - np.mean(NATS["natural"])
    assert first.summaries["uniform_mean"].value == pytest.approx(difference)
    assert found.verdict == first.verdict.sentence
    assert (views.num_lower(found), views.num_higher(found)) == (2, 1)
    assert first.speed_up.steps_to_match.value == pytest.approx(21.0)
    assert found.searches["doremi"].explained is None
    pairs = [(one.tuned, one.baseline) for one in found.comparisons]
    assert pairs == [("doremi", "natural"), ("uniform", "natural"), ("doremi", "uniform")]


def test_the_speed_up_is_in_the_target(tmp_path, monkeypatch):
    """doremi reaches the reference-weighted mean at step 20; its uniform mean is 0.1 higher on the same curve."""
    monkeypatch.setattr(scoring, "score", made_up_losses)
    steps = {target: collect(finished(tmp_path, target=target)).comparisons[0].speed_up.steps_to_match.value
             for target in ("reference", "uniform", "worst")}  # fmt: skip
    assert steps == pytest.approx({"reference": 20.0, "uniform": 21.0, "worst": 23.0})


def test_nothing_is_recommended_but_what_was_shown(found):
    assert (found.recommendation.arm, found.recommendation.weights) == ("natural", found.arms["natural"].weights)
    assert found.recommendation.reason == "natural, the control: no other arm is shown to be better."
    assert (found.verify.size, found.verify.seeds, found.control, found.target) == ("main", 3, "natural", "uniform")


def test_rules_of_equal_weights_are_one_arm_trained_once(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "score", made_up_losses)
    found = collect(finished(tmp_path, rules=["uniform", "unimax(9)"]))
    assert found.arms["unimax(9)"].same_as == "uniform"
    assert found.arms["unimax(9)"].folders == found.arms["uniform"].folders
    assert "unimax(9)" not in {one.tuned for one in found.comparisons} | {one.baseline for one in found.comparisons}


def measured(experiment, model):
    config = getattr(experiment.recipe.models, model)
    return model_size.measure(config, name=model, sequence_length=LENGTH, vocab_size=experiment.store.vocab_size)


def flops(experiment, model, *, tokens=TOKENS):
    """Training FLOPs, as the planner counts them."""
    size = measured(experiment, model)
    return size.training_flops(LENGTH) * tokens / LENGTH


def scoring_flops(experiment, *, tokens=TOKENS):
    """A third of training: the reference's forward passes."""
    return flops(experiment, "reference", tokens=tokens) / 3


def test_only_the_answer_pays_for_the_search(found, experiment):
    cost = found.searches["doremi"].cost
    search = cost.search["reference"] + cost.search["proxy"]
    assert (found.arms["doremi"].search_flops, found.arms["uniform"].search_flops) == (search, 0.0)
    per_step = flops(experiment, "main") / 30
    doremi, uniform, against_uniform = (one.speed_up for one in found.comparisons)
    steps = doremi.steps_to_match.value
    assert doremi.flops_to_match.value == pytest.approx(steps * per_step)
    assert doremi.factor_with_search.value == pytest.approx(30 * per_step / (steps * per_step + search))
    assert (uniform.factor.value, uniform.factor_with_search.value) == (1.0, 1.0)  # for nothing
    assert against_uniform.factor_with_search.value == doremi.factor_with_search.value
    assert cost.main == flops(experiment, "main")
    assert cost.total == pytest.approx(search + flops(experiment, "main"))


def test_arms_are_described(found, experiment):
    natural = found.arms["natural"]
    assert (natural.method, natural.seeds) == ("natural", [7, 8, 9])
    folders = [trained.folder(experiment.directory.root, label).name
               for label in ("reference", "natural, seed 8", "natural, seed 9")]  # fmt: skip
    assert natural.folders == [f"runs/{name}" for name in folders]
    doremi = found.arms["doremi"]
    assert doremi.train_seconds == [7, 8, 9]
    assert (doremi.steps, doremi.num_parameters, doremi.num_tokens) == (30, PARAMETERS, TOKENS)
    assert doremi.train_flops == flops(experiment, "main")
    assert doremi.weights == pytest.approx(ANSWER)


def test_convergence_is_of_the_whole_search(found):
    search = found.searches["doremi"]
    assert search.convergence.max_change == pytest.approx(0.1)  # b, 0.3 to 0.4
    entropy = -sum(weight * math.log(weight) for weight in ANSWER.values())
    assert search.convergence.effective_num_domains == pytest.approx(math.exp(entropy))
    assert search.convergence.status == "stopped at the maximum"
    assert search.convergence.changes == pytest.approx([0.08, 0.02])  # b
    assert search.trajectory.dro_weights["a"] == [2.0, 2.0]  # of the last round


def test_starvation_is_told_by_the_seed_of_the_reference(found, experiment, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        results.checks,
        "check_starvation",
        lambda answer, reference, **nats: seen.update(nats) or [],
    )
    collect(experiment)
    assert list(seen["reference_nats"].values()) == pytest.approx(NATS["natural"][0])
    assert list(seen["uniform_nats"].values()) == pytest.approx(NATS["uniform"][0])


def test_the_alarm_of_starvation_joins_those_of_the_search(experiment, monkeypatch):
    alarm = Alarm("starvation", "c", "more of it")
    monkeypatch.setattr(results.checks, "check_starvation", lambda *weights, **nats: [alarm])
    assert collect(experiment).searches["doremi"].alarms == [alarm]


def test_the_control_without_the_floor_explains_a_share_of_the_gain(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "score", made_up_losses)
    gains = {  # of natural over the plain arm and over doremi, in the uniform mean
        arm: [np.mean(before) - np.mean(after) for before, after in zip(NATS["natural"], NATS[arm], strict=True)]
        for arm in ("reference_without_floor", "doremi")
    }
    monkeypatch.setitem(NATS, "doremi", tuple([value - 5 for value in seed] for seed in NATS["doremi"]))
    experiment = finished(tmp_path, rules=["reference_without_floor"])
    explained = collect(experiment).searches["doremi"].explained
    share = np.mean(gains["reference_without_floor"]) / (np.mean(gains["doremi"]) + 5)
    assert explained.arm == "reference_without_floor"
    assert explained.summaries["uniform_mean"].share.value == pytest.approx(share)


def test_it_is_json(found):
    assert parse(json.loads(json.dumps(found.model_dump(), allow_nan=False))) == found
    assert found.provenance["corpus_digest"] == "corpus-1"
    assert found.tasks is None


def test_the_search_is_all_rounds_and_seeds(experiment):
    asked = asked_for(experiment)
    found = costs.search_costs(experiment, asked, folders_of_arms(experiment))
    assert found["proxy"].model_dump() == {
        "train_seconds": 4 * 2.5,
        "num_parameters": 500,
        "num_tokens": 4 * TOKENS,
        "flops": pytest.approx(
            flops(experiment, "proxy", tokens=4 * TOKENS) + scoring_flops(experiment, tokens=4 * TOKENS)
        ),
    }
    # the first round's reference is the control's run
    assert found["reference"].model_dump() == {
        "train_seconds": 4.0, "num_parameters": PARAMETERS, "num_tokens": TOKENS,
        "flops": flops(experiment, "reference"),
    }  # fmt: skip
    first_round = [run for run in asked if "round 2" not in run.label]
    assert costs.search_costs(experiment, first_round, folders_of_arms(experiment)).keys() == {"proxy"}


def test_the_search_has_the_flops_of_every_reference(experiment):
    """Also of the one that is the control's run: without it there are no weights."""
    asked = asked_for(experiment)
    assert costs.search_flops(experiment, asked) == {
        "reference": 2 * flops(experiment, "reference"),
        "proxy": costs.search_costs(experiment, asked, folders_of_arms(experiment))["proxy"].flops,
    }


def asked_for(experiment):
    return [outcome.run for outcome in search.known(experiment)["doremi"].done]


def folders_of_arms(experiment):
    return {run.folder for arm in compared(experiment) for run in arm.runs.values()}


def finished_search(folder, **sections):
    experiment = made_up.make(folder, **sections)
    made_up.finish_search(experiment, ANSWER)
    return experiment, costs.search_costs(experiment, asked_for(experiment), folders_of_arms(experiment))


def test_a_reference_of_another_size_is_part_of_the_search(tmp_path):
    small = {"reference": {"preset": "tiny", "overrides": {"hidden_size": 16}}, "proxy": "tiny", "main": "tiny"}
    experiment, found = finished_search(tmp_path, models=small)
    assert found["reference"].flops == flops(experiment, "reference") < flops(experiment, "proxy")
    expected = flops(experiment, "proxy") + scoring_flops(experiment)
    assert found["proxy"].flops == pytest.approx(expected)


def test_a_trained_reference_costs_its_forward_passes(tmp_path):
    from doremi.models import loading

    other = made_up.make(tmp_path / "other")
    model = other.recipe.models.reference
    size = model_size.measure(model, name="reference", sequence_length=LENGTH, vocab_size=300)
    shutil.copytree(other.store.tokenizer_path, tmp_path / "model")
    loading.configure(model, vocab_size=300, eos_token_id=0, sequence_length=8).save_pretrained(tmp_path / "model")
    models = {"reference": {"path": str(tmp_path / "model"), "init": "trained"}}
    experiment, found = finished_search(tmp_path / "run", models=models)
    assert found.keys() == {"proxy"}
    expected = flops(experiment, "proxy") + size.forward_flops(LENGTH) * TOKENS / LENGTH
    assert found["proxy"].flops == pytest.approx(expected)


def test_the_hardest_objective_asks_no_reference(tmp_path):
    experiment, found = finished_search(tmp_path, doremi={"objective": "hardest"})
    assert found["proxy"].flops == flops(experiment, "proxy")


def test_curves_are_means_over_seeds(found):
    curve = found.arms["doremi"].curve
    assert curve.steps == [10, 20, 30]
    assert curve.nats["b"] == pytest.approx([4.3, 3.3, 2.3])
    for key, more in {"uniform_mean": 0.2, "reference_mean": 0.0, "worst": 0.6}.items():
        assert curve.summaries[key] == pytest.approx([4.1 + more, 3.1 + more, 2.1 + more])
        assert curve.by_seed["9"][key] == pytest.approx([4.2 + more, 3.2 + more, 2.2 + more])


def test_a_learning_curve_has_the_summaries_of_each_point(tmp_path):
    experiment = made_up.make(tmp_path)
    run = Run("reference", 7, experiment.prior)
    log = [{"step": 5, "held_out_nats/a": 1.0, "held_out_nats/b": 2.0, "held_out_nats/c": 6.0},
           {"step": 9, "held_out_nats/a": 4.0, "held_out_nats/b": 2.0, "held_out_nats/c": 3.0}]  # fmt: skip
    made_up.finish(experiment, run, history=log)
    curve, targets = learning_curve(ledger.training_run(experiment, run)), Targets(experiment.prior)
    assert curve.steps == [5, 9]
    found = summarised(curve, targets)
    assert found["uniform_mean"] == [3.0, 3.0]
    assert found["reference_mean"] == pytest.approx([1.8, 3.3])
    assert found["worst"] == [6.0, 4.0]
    alone = mean_curve({7: curve}, targets)
    assert (alone.steps, alone.nats, alone.summaries, alone.by_seed) == (curve.steps, curve.nats, found, {})


@pytest.mark.parametrize(("num_logged", "stride"), [(3, 1), (500, 1), (501, 2), (1001, 3)])
def test_a_long_trajectory_is_thinned_and_keeps_its_last_step(num_logged, stride):
    history = [
        {"step": 10 * index, "dro_weights/a": index, "average_weights/a": 2 * index, "excess_losses/a": 3 * index}
        for index in range(1, num_logged + 1)
    ]
    found = trajectory([*history, {"step": 5, "loss": 1.0}], ["a"])
    assert found.steps[-1] == 10 * num_logged
    assert len(found.steps) == math.ceil(num_logged / stride) <= 500
    assert set(np.diff(found.steps)) == {10 * stride}
    last = (found.dro_weights["a"][-1], found.average_weights["a"][-1], found.excess_losses["a"][-1])
    assert last == (num_logged, 2 * num_logged, 3 * num_logged)


def test_the_largest_change_may_be_a_loss_of_weight():
    found = answers.convergence({}, {"a": 0.3, "b": 0.5, "c": 0.2}, {"a": 0.6, "b": 0.3, "c": 0.1})
    assert found.max_change == pytest.approx(0.3)


def test_the_same_loss_is_neither_better_nor_worse(experiment, monkeypatch):
    same = tuple(
        [*main[:1], *before[1:2], *main[2:]] for main, before in zip(NATS["doremi"], NATS["natural"], strict=True)
    )
    monkeypatch.setitem(NATS, "doremi", same)
    found = collect(experiment)
    assert (views.num_lower(found), views.num_higher(found)) == (1, 1)  # a and c


@pytest.mark.parametrize("unknown", [("reference",), ("main",), ("reference", "proxy", "main")])
def test_what_is_not_known_of_flops_is_null(experiment, monkeypatch, unknown):
    """Everything is trained by then: an accounting figure fails nothing, and is no made-up number either."""
    measure = model_size.measure

    def partly(config, *, name, **facts):
        size = measure(config, name=name, **facts)
        return replace(size, forward_flops=lambda length: math.nan) if name in unknown else size

    monkeypatch.setattr(model_size, "measure", partly)
    found = parse(json.loads(json.dumps(collect(experiment).model_dump(), allow_nan=False)))
    cost = found.searches["doremi"].cost
    assert (cost.main is None) == (found.arms["doremi"].train_flops is None) == ("main" in unknown)
    assert cost.search_over_main is None
    assert (cost.search["proxy"] is None) == ("reference" in unknown)  # its forward passes
    assert (found.arms["doremi"].search_flops is None) == (unknown != ("main",))
    saved = found.comparisons[0].speed_up
    assert saved.factor.value == pytest.approx(30 / 21)
    assert saved.factor_with_search.value is None
    assert (saved.flops_to_match.value is None) == ("main" in unknown)
    rows = {row.name: row.flops for row in views.cost_rows(found)}
    assert (rows["doremi"] is None) == ("main" in unknown)  # no estimate in its place
    assert sentences.cost(found) is sentences.cost_with_search(found) is None
