"""Main models with several seeds: what is trained, and that the statistics are those of the numbers beside them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats

from doremi import files
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
    assert [run["seeds"] for run in results["runs"].values()] == [[0, 1, 2]] * len(results["runs"])
    baseline = results["runs"]["baseline"]["by_seed"]
    assert baseline["0"]["folder"] == "rounds/01/reference"  # the reference is the baseline's first seed
    assert baseline["2"]["folder"] == "runs/natural/seed-2"
    models = {files.digest_file(out / seed["folder"] / "model.safetensors")
              for run in results["runs"].values() for seed in run["by_seed"].values()}  # fmt: skip
    assert len(models) == 3 * (len(results["runs"]) - 1)


def test_rules_that_give_the_same_weights_share_their_models(finished):
    """At 2,000 tokens UniMax's cap on epochs binds nowhere."""
    out, _, results, _ = finished
    uniform, unimax = results["runs"]["uniform"], results["runs"]["unimax"]
    assert uniform["domain_weights"] == unimax["domain_weights"]
    assert uniform["by_seed"] == unimax["by_seed"]
    assert not (out / "runs" / "unimax").exists()


def test_more_seeds_leave_the_first_alone(finished):
    _, one, three, _ = finished
    for run in ("baseline", "main", "uniform"):
        alone = {name: domain["nats"][run] for name, domain in one["domains"].items()}
        assert three["runs"][run]["by_seed"]["0"]["nats"] == alone
    assert one["comparisons"][0]["verdict"]["outcome"] == "not measured"
    assert one["verdict"].startswith("Seed noise not measured (1 of the 3 seeds")


def test_means_and_intervals_are_those_of_the_seeds(finished):
    _, _, results, stdout = finished
    by_seed = {run: list(described["by_seed"].values()) for run, described in results["runs"].items()}
    for run, seeds in by_seed.items():
        assert results["uniform_mean_nats"][run] == pytest.approx(np.mean([s["uniform_mean_nats"] for s in seeds]))
        assert results["worst_nats"][run] == pytest.approx(np.mean([s["worst_nats"] for s in seeds]))
        for name, domain in results["domains"].items():
            assert domain["nats"][run] == pytest.approx(np.mean([s["nats"][name] for s in seeds]))
    for found in results["comparisons"]:
        tuned, baseline = ([s["reference_mean_nats"] for s in by_seed[found[side]]] for side in ("tuned", "baseline"))
        summary, expected = found["summaries"]["reference_mean"], stats.ttest_rel(tuned, baseline)
        assert summary["value"] == pytest.approx(np.mean(tuned) - np.mean(baseline))
        assert summary["p_value"] == pytest.approx(expected.pvalue)
    assert results["comparisons"][0]["tuned"] == "main"
    assert results["verdict"] == results["comparisons"][0]["verdict"]["sentence"]
    assert results["verdict"].split(":")[0] in " ".join(stdout.split())


def test_doremi_is_compared_with_everything(finished):
    _, _, results, _ = finished
    pairs = [(found["tuned"], found["baseline"]) for found in results["comparisons"]]
    others = [run for run in results["runs"] if run not in ("baseline", "main")]
    assert "uniform" in others
    assert pairs == [
        ("main", "baseline"), *((run, "baseline") for run in others), *(("main", run) for run in others)
    ]  # fmt: skip


def test_losses_of_documents_are_kept_and_add_up(finished):
    out, _, results, _ = finished
    for run in results["runs"].values():
        for seed in run["by_seed"].values():
            table = (
                pq.read_table(out / seed["folder"] / "held_out.parquet").to_pandas().groupby("domain", observed=True)
            )
            sums = table[["nats", "num_tokens"]].sum()
            assert (sums["nats"] / sums["num_tokens"]).to_dict() == pytest.approx(seed["nats"])
    held_out = {name: domain["held_out_tokens"] for name, domain in results["domains"].items()}
    assert sums["num_tokens"].to_dict() == held_out


def test_the_search_and_the_main_run_are_counted_as_they_were_planned(finished):
    out, _, results, _ = finished
    flags = [part for setting in ("verify.seeds=3", BASELINES) for part in ("--set", setting)]
    code, stdout, stderr = doremi("plan", out.parent / "tiny.yaml", "--out", out, "--json", *flags)
    assert code == 0, stderr
    planned = {stage["name"]: stage for stage in json.loads(stdout)["stages"]}
    cost, main = results["cost"], results["runs"]["main"]
    assert cost["main"] == main["flops"] == pytest.approx(planned["main"]["flops"] / 3)
    assert cost["search"] == pytest.approx({stage: planned[stage]["flops"] for stage in ("reference", "proxy")})
    assert cost["search_over_main"] == pytest.approx(1 + 4 / 3)  # models of one size: a third for the forward passes
    assert results["costs"].keys() == {"proxy"}  # the reference is a run that is compared, and listed there


def test_few_shot_tasks_of_every_model_and_checkpoint(finished, with_tasks):
    _, _, before, _ = finished
    out, results = with_tasks
    assert results["verdict"] == before["verdict"]  # held-out losses were not computed again, or came out the same
    tasks = results["tasks"]
    assert list(tasks["tasks"]) == ["next_word"]
    assert tasks["tasks"]["next_word"]["num_documents"] == 36
    for run, described in results["runs"].items():
        found = tasks["tasks"]["next_word"]["runs"][run]
        scores = [
            np.mean(pq.read_table(out / seed["folder"] / "tasks" / "next_word.parquet")["score"].to_pylist())
            for seed in described["by_seed"].values()
        ]
        assert found["value"] == pytest.approx(np.mean(scores))
        assert tasks["curves"][run]["steps"] == [5, 10]
        assert tasks["curves"][run]["average"][-1] == pytest.approx(np.mean(scores))
    assert [pair["tuned"] for pair in tasks["comparisons"]][:2] == ["main", "uniform"]
