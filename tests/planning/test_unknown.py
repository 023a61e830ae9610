"""Models whose FLOPs or activations are not known: null in JSON, "not known" in tables, never a number or an error."""

from __future__ import annotations

import json
import math

import pytest

from doremi.errors import InputError
from doremi.evidence.speed_up import cost, speed_up
from doremi.experiment import recipe
from doremi.planning import devices, doubts, held_out, memory, pace, plan, show, to_dict
from doremi.planning.pace import MeasuredPace
from tests.conformance import zoo
from tests.planning.recipes import ROWS, SIZES, forward, make, planned, unknown
from tests.planning.test_pace import timed

COMMON = ["llama", "mamba", "qwen3_next", "deepseek_v3", "jetmoe"]


def test_a_stage_without_flops_leaves_the_others_theirs():
    found = planned(make(), sizes=SIZES | {"main": unknown(10_000)})
    assert math.isnan(found["natural"].flops)
    assert found["reference"].flops == ROWS * 3 * forward("reference")
    assert found["proxy"].flops == ROWS * (3 * forward("proxy") + forward("reference"))


def test_a_proxy_is_unknown_with_its_reference_unless_it_asks_for_none():
    sizes = SIZES | {"reference": unknown(1000)}
    assert math.isnan(planned(make(), sizes=sizes)["proxy"].flops)
    hardest = planned(make(doremi={"objective": "hardest"}), sizes=sizes)
    assert hardest["proxy"].flops == ROWS * 3 * forward("proxy")


def test_memory_of_which_a_part_is_known():
    config = make().training.for_run("main")
    found = memory.estimate(unknown(1_000_000), config, micro_batch_size=1, num_devices=1)
    assert (found.activations, found.total) == (None, None)
    assert found.known == 16e6 + found.logits
    (doubt,) = doubts.memory({"main": found}, device_gb=0.01, device="x")
    assert doubt.startswith("main: needs more than 0 GB on each device")
    assert not list(doubts.memory({"main": found}, device_gb=80, device="x"))


def planned_for(model_type, folder, run="main"):
    path = zoo.write(model_type, folder / "model")
    corpus = folder / "corpus.jsonl"
    corpus.write_text('{"text": "some", "domain": "a"}\n')
    made = recipe.parse(
        {
            "corpus": {"inputs": [{"path": str(corpus)}], "tokenizer": {"vocab_size": 300}},
            "models": {"reference": "tiny", "proxy": "tiny", "main": "tiny"} | {run: {"path": str(path)}},
            "training": {"steps": 10, "sequence_length": 32, "global_batch_size": 4},
            "prior": {"a": 1.0, "b": 1.0},
        }
    )
    return made, plan.make(made, folder / "out")


@pytest.mark.parametrize("run", ["main", "reference"])
def test_a_plan_says_what_it_does_not_know(run, tmp_path):
    made, found = planned_for("jetmoe", tmp_path, run)
    content = json.loads(json.dumps(to_dict(found), allow_nan=False))
    stages = {stage["name"]: stage for stage in content["stages"]}
    name = {"main": "natural", "reference": "reference"}[run]
    assert (stages[name]["flops"], content["total_flops"]) == (None, None)
    assert stages[name]["num_parameters"] > 0
    assert (content["verification_flops" if run == "main" else "search_flops"]) is None
    assert (content["search_flops" if run == "main" else "verification_flops"]) > 0
    known = [stage["flops"] for stage in stages.values() if stage["flops"] is not None]
    assert len(known) == {"main": 2, "reference": 3}[run]  # the proxy needs its reference
    assert content["memory_bytes"][run]["total"] is content["memory_bytes"][run]["activations"] is None
    assert content["memory_bytes"]["proxy"]["total"] > 0
    text = show(found, made, pace=pace.AssumedPace("h200", devices.find("h200"), 0.4, 1), price=2)
    row = next(line for line in text.splitlines() if line.strip().startswith(f"train {name}"))
    assert row.count("not known") == 4  # FLOPs, share, hours and money
    assert f"{run} " in text
    assert "and activations (not known)" in text
    assert "nan" not in text


def check_plan(model_type, folder):
    made, found = planned_for(model_type, folder)
    json.dumps(to_dict(found), allow_nan=False)
    assert "nan" not in show(found, made).replace(str(folder), "")  # which nanochat is in


@pytest.mark.parametrize("model_type", COMMON)
def test_plans_of_common_types(model_type, tmp_path):
    check_plan(model_type, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(set(zoo.TYPES) - set(COMMON)))
def test_plans_of_all_types(model_type, tmp_path):
    try:
        check_plan(model_type, tmp_path)
    except InputError as error:
        pytest.skip(f"refused: {error}")


class Store:
    """A hundred tokens of everything."""

    sets: tuple[str, ...] = ()

    def num_tokens(self, name, split):
        return 100


def test_scoring_held_out_text_is_unknown_with_any_of_the_models():
    stages = list(planned(make(), sizes=SIZES | {"main": unknown(1)}).values())
    found = held_out.scoring(make(), stages, Store(), ["a"])
    assert found.num_tokens > 0
    assert math.isnan(found.flops)


def test_sets_are_scored_as_often_as_domains():
    with_sets = Store()
    with_sets.sets = ("client", "bench")
    stages = list(planned(make()).values())
    one, three = (held_out.scoring(make(), stages, store, ["a"]) for store in (Store(), with_sets))
    assert three.num_tokens == 3 * one.num_tokens
    assert three.flops == pytest.approx(3 * one.flops)


def test_measured_steps_need_no_flops():
    stages = planned(make(), sizes=SIZES | {"main": unknown(1)})
    pace = MeasuredPace(timed(stages, 1, 2, 4), timed(stages, 10, 20, math.nan), 1, "here")
    assert pace.seconds(stages["natural"]) == ROWS * 4
    assert math.isnan(pace.seconds_for(500))
    assert "main not known" in pace.describe()


def test_costs_of_a_search():
    found = cost({"reference": math.nan, "proxy": 2.0}, main=4.0)
    assert (found.search, found.main) == ({"reference": None, "proxy": 2.0}, 4.0)
    assert (found.total, found.search_over_main) == (None, None)
    found = cost({"proxy": 2.0}, main=math.nan)
    assert (found.search, found.main, found.total, found.search_over_main) == ({"proxy": 2.0}, None, None, None)


@pytest.mark.parametrize(("per_step", "search"), [(math.nan, 0.0), (1e3, math.nan)])
def test_speed_ups(per_step, search):
    steps = {0: 50, 1: 25, 2: 12.5}
    found = speed_up(steps, baseline_steps=100, flops_per_step=per_step, search_flops=search)
    assert found.factor.value == pytest.approx(4)
    assert found.factor.low is not None
    known = found.flops_to_match.value is not None
    assert known == (not math.isnan(per_step))
    assert vars(found.factor_with_search) == {
        "value": None, "low": None, "high": None, "p_value": None, "method": "none: FLOPs are not known"}  # fmt: skip
