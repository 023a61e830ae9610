"""What results.json says of few-shot tasks, from answers made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from doremi import few_shot_runs
from doremi.evaluation.task_results import TaskResult


def result(task, scores, *, higher_is_better=True):
    values = np.asarray(scores, float)
    return TaskResult(
        task=task, metric="acc", value=float(values.mean()),
        standard_error=float(values.std(ddof=1) / len(values) ** 0.5), num_documents=len(values), num_fewshot=1,
        num_truncated=0, higher_is_better=higher_is_better, version="1", prompts_digest="same",
        scores={str(index): value for index, value in enumerate(values.tolist())},
    )  # fmt: skip


def seeds(*first_and_second):
    return {
        seed: {"a": result("a", scores), "b": result("b", [1.0, 0.0])} for seed, scores in enumerate(first_and_second)
    }


ASKED = {
    "baseline": seeds([0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]),
    "main": seeds([1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 1, 0]),
    "uniform": seeds([1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]),
}


def test_values_are_means_over_seeds():
    found = few_shot_runs.summarise(ASKED)["a"]
    assert found["runs"]["baseline"]["value"] == pytest.approx((0.25 + 0.5 + 0.0) / 3)
    assert found["runs"]["baseline"]["by_seed"]["1"]["value"] == 0.5
    assert (found["metric"], found["num_documents"], found["num_fewshot"]) == ("acc", 4, 1)


def test_the_average_counts_tasks_the_same():
    found = few_shot_runs.averages(ASKED)
    assert found["main"]["value"] == pytest.approx(np.mean([(0.5 + 0.5) / 2, (0.75 + 0.5) / 2, (0.25 + 0.5) / 2]))
    assert found["main"]["tasks"] == ["a", "b"]


def test_perplexities_are_left_out_of_the_average():
    asked = {"baseline": {0: {"a": result("a", [0, 1]), "p": result("p", [9, 7], higher_is_better=False)}}}
    assert few_shot_runs.averages(asked)["baseline"]["tasks"] == ["a"]
    only = {"baseline": {0: {"p": result("p", [9, 7], higher_is_better=False)}}}
    assert few_shot_runs.averages(only) == {}


def test_differences_of_averages_are_paired_over_seeds():
    main, *_ = few_shot_runs.compare_all(ASKED)
    assert (main["tuned"], main["baseline"]) == ("main", "baseline")
    after, before = [0.5, 0.625, 0.375], [0.375, 0.5, 0.25]
    assert main["average"]["value"] == pytest.approx(0.125)
    assert main["average"]["method"] == "none: all 3 seeds give the same number"
    uniform = few_shot_runs.compare_all(ASKED)[1]
    assert uniform["tuned"] == "uniform"
    assert uniform["average"]["p_value"] == pytest.approx(stats.ttest_rel([0.75] * 3, before).pvalue)
    assert np.mean(after) - np.mean(before) == pytest.approx(main["average"]["value"])


def test_documents_are_compared_in_their_mean_over_seeds():
    many = {
        run: {seed: {"a": result("a", (np.arange(40) + seed + shift) % 3 == 0)} for seed in range(3)}
        for run, shift in (("baseline", 0), ("main", 1))
    }
    many["main"][0] = {"a": result("a", np.arange(40) % 2)}
    found = few_shot_runs.compare_all(many)[0]["tasks"]["a"]
    mean = {
        run: np.mean([[*by_seed[s]["a"].scores.values()] for s in range(3)], axis=0) for run, by_seed in many.items()
    }
    expected = stats.ttest_rel(mean["main"], mean["baseline"])
    assert found["value"] == pytest.approx(mean["main"].mean() - mean["baseline"].mean())
    assert found["p_value"] == pytest.approx(expected.pvalue)
    assert found["method"] == "paired t over documents (n=40)"
    whole = few_shot_runs.compare_all(many)[0]["average_over_documents"]
    assert whole["value"] == pytest.approx(found["value"])  # of a single task
    assert whole["p_value"] == pytest.approx(found["p_value"])
