"""Main models with several seeds: what is trained, and that the statistics are those of the numbers beside them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats

from doremi import files
from tests import trained
from tests.end_to_end.conftest import doremi, write_corpus, write_recipe

BASELINES = "methods=[natural, uniform, unimax, reference_without_floor, doremi]"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Results with one seed, and those of the same directory with three."""
    folder = tmp_path_factory.mktemp("seeds")
    write_corpus(folder)
    recipe, out = write_recipe(folder, steps=10, save_steps=5), folder / "out"
    code, _, stderr = doremi("run", recipe, "--out", out)
    assert code == 0, stderr
    one = json.loads((out / "results.json").read_text())
    code, stdout, stderr = doremi("run", recipe, "--out", out, "--set", "verify.seeds=3", "--set", BASELINES)
    assert code == 0, stderr
    return out, one, json.loads((out / "results.json").read_text()), stdout


@pytest.fixture(scope="module")
def with_tasks(finished):
    """The same models, asked a local task in lm-eval's format, at their checkpoints too."""
    out, *_ = finished
    folder = out.parent / "task"
    folder.mkdir()
    rows = [{"question": f"the {word} of", "answer": answer} for word in ["river", "stone", "house", "she", "he", "had"]
            for answer in ("and", "was", "the", "light", "evening", "garden")]  # fmt: skip
    (folder / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "next_word",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.json")}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{' ' + answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "next_word.yaml").write_text(yaml.safe_dump(task))
    settings = (f"evaluation.tasks=[{folder / 'next_word.yaml'}]", "evaluation.task_checkpoints=all", "verify.seeds=3")
    flags = [part for setting in (*settings, BASELINES) for part in ("--set", setting)]
    code, _, stderr = doremi("evaluate", out.parent / "tiny.yaml", "--out", out, *flags)
    assert code == 0, stderr
    return out, json.loads((out / "results.json").read_text())


def test_every_weight_vector_is_trained_with_every_seed(finished):
    out, _, results, _ = finished
    assert [arm["seeds"] for arm in results["arms"].values()] == [[0, 1, 2]] * len(results["arms"])
    # the reference is the control's first seed
    labels = ("reference", "natural, seed 1", "natural, seed 2")
    assert results["arms"]["natural"]["folders"] == [f"runs/{trained.folder(out, label).name}" for label in labels]
    models = {files.digest_file(out / folder / "model.safetensors")
              for arm in results["arms"].values() for folder in arm["folders"]}  # fmt: skip
    own = [label for label, arm in results["arms"].items() if arm["same_as"] is None]
    assert own == [
        "natural",
        "uniform",
        "doremi",
    ]  # a cap that binds nowhere, and no domain at the floor, change nothing
    assert len(models) == 3 * len(own)


def test_rules_that_give_the_same_weights_share_their_models(finished):
    """At 2,000 tokens UniMax's cap on epochs binds nowhere."""
    out, _, results, _ = finished
    uniform, unimax = results["arms"]["uniform"], results["arms"]["unimax"]
    assert uniform["weights"] == unimax["weights"]
    assert (uniform["same_as"], unimax["same_as"]) == (None, "uniform")
    assert (uniform["folders"], uniform["nats"]) == (unimax["folders"], unimax["nats"])
    assert not [name for name in trained.names(out) if name.startswith("unimax")]


def test_more_seeds_leave_the_first_alone(finished):
    _, one, three, _ = finished
    for arm in ("natural", "doremi", "uniform"):
        first = {name: values[:1] for name, values in three["arms"][arm]["nats"].items()}
        assert first == one["arms"][arm]["nats"]
    assert one["comparisons"][0]["verdict"]["outcome"] == "not measured"
    assert one["verdict"].startswith("Seed noise not measured (1 of the 3 seeds")


def test_means_and_intervals_are_those_of_the_seeds(finished):
    _, _, results, stdout = finished
    for arm in results["arms"].values():
        nats = np.array(list(arm["nats"].values()))
        assert arm["summaries"]["uniform_mean"] == pytest.approx(nats.mean(axis=0))
        assert arm["summaries"]["worst"] == pytest.approx(nats.max(axis=0))
    for found in results["comparisons"]:
        tuned, baseline = (
            results["arms"][found[side]]["summaries"]["reference_mean"] for side in ("tuned", "baseline")
        )
        summary, expected = found["summaries"]["reference_mean"], stats.ttest_rel(tuned, baseline)
        assert summary["value"] == pytest.approx(np.mean(tuned) - np.mean(baseline))
        assert summary["p_value"] == pytest.approx(expected.pvalue)
    assert results["comparisons"][0]["tuned"] == "doremi"
    assert results["verdict"].startswith(results["comparisons"][0]["verdict"]["sentence"])
    family = [found["among_arms"] for found in results["comparisons"] if found["baseline"] == "natural"]
    assert all(judged["holm_p_value"] >= judged["p_value"] for judged in family)
    assert results["verdict"].split(":")[0] in " ".join(stdout.split())


def test_doremi_is_compared_with_everything(finished):
    _, _, results, _ = finished
    pairs = [(found["tuned"], found["baseline"]) for found in results["comparisons"]]
    others = [
        label for label, arm in results["arms"].items() if label not in ("natural", "doremi") and not arm["same_as"]
    ]
    assert "uniform" in others
    assert pairs == [
        ("doremi", "natural"), *((arm, "natural") for arm in others), *(("doremi", arm) for arm in others)
    ]  # fmt: skip


def test_losses_of_documents_are_kept_and_add_up(finished):
    out, _, results, _ = finished
    for arm in results["arms"].values():
        for place, folder in enumerate(arm["folders"]):
            table = pq.read_table(out / folder / "held_out.parquet").to_pandas().groupby("domain", observed=True)
            sums = table[["nats", "num_tokens"]].sum()
            of_seed = {name: values[place] for name, values in arm["nats"].items()}
            assert (sums["nats"] / sums["num_tokens"]).to_dict() == pytest.approx(of_seed)
    held_out = {name: text["tokens"] for name, text in results["sets"].items()}
    assert sums["num_tokens"].to_dict() == held_out


def test_the_search_and_the_main_run_are_counted_as_they_were_planned(finished):
    out, _, results, _ = finished
    flags = [part for setting in ("verify.seeds=3", BASELINES) for part in ("--set", setting)]
    code, stdout, stderr = doremi("plan", out.parent / "tiny.yaml", "--out", out, "--json", *flags)
    assert code == 0, stderr
    planned = {stage["name"]: stage for stage in json.loads(stdout)["stages"]}
    search, arm = results["searches"]["doremi"], results["arms"]["doremi"]
    cost = search["cost"]
    assert arm["search_flops"] == pytest.approx(sum(cost["search"].values()))
    assert cost["main"] == arm["train_flops"] == pytest.approx(planned["doremi"]["flops"] / 3)
    assert cost["search"] == pytest.approx({stage: planned[stage]["flops"] for stage in ("reference", "proxy")})
    assert cost["search_over_main"] == pytest.approx(1 + 4 / 3)  # models of one size: a third for the forward passes
    assert search["costs"].keys() == {"proxy"}  # the reference is a model of an arm, and listed there


@pytest.mark.slow
def test_few_shot_tasks_of_every_model_and_checkpoint(finished, with_tasks):
    _, _, before, _ = finished
    out, results = with_tasks
    assert results["verdict"] == before["verdict"]  # held-out losses were not computed again, or came out the same
    tasks = results["tasks"]
    assert list(tasks["tasks"]) == ["next_word"]
    assert tasks["tasks"]["next_word"]["num_documents"] == 36
    for label, arm in results["arms"].items():
        found = tasks["tasks"]["next_word"]["arms"][label]
        scores = [
            np.mean(pq.read_table(out / folder / "tasks" / "next_word.parquet")["score"].to_pylist())
            for folder in arm["folders"]
        ]
        assert found["value"] == pytest.approx(np.mean(scores))
        assert tasks["curves"][label]["steps"] == [5, 10]
        assert tasks["curves"][label]["average"][-1] == pytest.approx(np.mean(scores))
    assert [pair["tuned"] for pair in tasks["comparisons"]][:2] == ["doremi", "uniform"]
