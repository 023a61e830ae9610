"""What results.json says of few-shot tasks, from answers made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from doremi.evaluation.few_shot import FewShot
from doremi.evaluation.task_results import TaskResult
from doremi.experiment import few_shot_runs
from doremi.experiment.arms import arms
from tests import made_up, trained


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


ANSWERS = {
    "natural": seeds([0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]),
    "doremi": seeds([1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 1, 0]),
    "uniform": seeds([1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]),
}


def test_values_are_means_over_seeds():
    found = few_shot_runs.summarise(ANSWERS)["a"]
    assert found.arms["natural"].value == pytest.approx((0.25 + 0.5 + 0.0) / 3)
    assert found.arms["natural"].by_seed["1"].value == 0.5
    assert (found.metric, found.num_documents, found.num_fewshot) == ("acc", 4, 1)


def test_the_average_counts_tasks_the_same():
    found = few_shot_runs.averages(ANSWERS)
    assert found["doremi"].value == pytest.approx(np.mean([(0.5 + 0.5) / 2, (0.75 + 0.5) / 2, (0.25 + 0.5) / 2]))
    assert found["doremi"].tasks == ["a", "b"]


def test_perplexities_are_left_out_of_the_average():
    answers = {"natural": {0: {"a": result("a", [0, 1]), "p": result("p", [9, 7], higher_is_better=False)}}}
    assert few_shot_runs.averages(answers)["natural"].tasks == ["a"]
    only = {"natural": {0: {"p": result("p", [9, 7], higher_is_better=False)}}}
    assert few_shot_runs.averages(only) == {}


def test_differences_of_averages_are_paired_over_seeds():
    found = few_shot_runs.compare(ANSWERS, "doremi", "natural")
    assert (found.tuned, found.baseline) == ("doremi", "natural")
    after, before = [0.5, 0.625, 0.375], [0.375, 0.5, 0.25]
    assert found.average.value == pytest.approx(0.125)
    assert found.average.method == "none: all 3 seeds give the same number"
    uniform = few_shot_runs.compare(ANSWERS, "uniform", "natural")
    assert uniform.average.p_value == pytest.approx(stats.ttest_rel([0.75] * 3, before).pvalue)
    assert np.mean(after) - np.mean(before) == pytest.approx(found.average.value)


def test_documents_are_compared_in_their_mean_over_seeds():
    many = {
        run: {seed: {"a": result("a", (np.arange(40) + seed + shift) % 3 == 0)} for seed in range(3)}
        for run, shift in (("natural", 0), ("doremi", 1))
    }
    many["doremi"][0] = {"a": result("a", np.arange(40) % 2)}
    found = few_shot_runs.compare(many, "doremi", "natural").tasks["a"]
    mean = {
        run: np.mean([[*by_seed[s]["a"].scores.values()] for s in range(3)], axis=0) for run, by_seed in many.items()
    }
    expected = stats.ttest_rel(mean["doremi"], mean["natural"])
    assert found.value == pytest.approx(mean["doremi"].mean() - mean["natural"].mean())
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.method == "paired t over documents (n=40)"
    whole = few_shot_runs.compare(many, "doremi", "natural").average_over_documents
    assert whole.value == pytest.approx(found.value)  # of a single task
    assert whole.p_value == pytest.approx(found.p_value)


def test_an_average_needs_every_seed():
    perplexity = {"a": result("a", [9, 7], higher_is_better=False)}
    assert few_shot_runs.averages({"doremi": ANSWERS["doremi"] | {1: perplexity}}) == {}


@pytest.fixture
def ask_all(tmp_path, monkeypatch):
    """`few_shot_runs.ask_all` of models that answer in all of their checkpoints, and what was asked where."""
    asked = []

    def evaluate_tasks(model, tasks, *, results, batch_size, few_shot):
        asked.append((model, tuple(tasks), results, batch_size, few_shot))
        step = int(model.name.split("-")[1]) if model.name.startswith("checkpoint") else 30
        return {"a": result("a", [1.0] * step + [0.0] * (100 - step))}

    def steps(folder):
        return [20, 30] if "-seed-" in folder.name else [10, 20, 30]  # one has a checkpoint more

    monkeypatch.setattr(few_shot_runs.downstream, "evaluate_tasks", evaluate_tasks)
    monkeypatch.setattr(few_shot_runs.checkpoints, "steps", steps)

    def ask(**evaluation):
        experiment = made_up.make(tmp_path, evaluation=evaluation)
        found = made_up.finish_search(experiment, {"a": 0.5, "b": 0.4, "c": 0.1})
        answers = {label: each.answer for label, each in found.items()}
        runs = {arm.label: arm.runs for arm in arms(experiment, answers)}
        for run in (run for by_seed in runs.values() for run in by_seed.values()):
            run.folder.mkdir(parents=True, exist_ok=True)
        return few_shot_runs.ask_all(experiment, runs, [("doremi", "natural")]), asked

    return ask


def test_every_final_model_is_asked_the_same(ask_all, tmp_path):
    found, asked = ask_all(tasks=["x", "y"], num_fewshot=2, task_limit=5, batch_size=3)
    assert len(asked) == 9  # three weight vectors with three seeds
    assert {(tasks, size, shots) for _, tasks, _, size, shots in asked} == {(("x", "y"), 3, FewShot(2, 5))}
    assert {(model, results) for model, _, results, _, _ in asked} >= {
        (folder, folder / "tasks")
        for folder in (trained.folder(tmp_path, "reference"), trained.folder(tmp_path, "doremi, seed 9"))
    }
    assert (found.num_fewshot, found.limit, found.curves) == (2, 5, {})
    assert found.average["doremi"].value == pytest.approx(0.3)
    assert [(pair.tuned, pair.baseline) for pair in found.comparisons] == [("doremi", "natural")]


def test_a_curve_has_the_steps_that_every_seed_has(ask_all, tmp_path):
    found, asked = ask_all(tasks=["x"], task_checkpoints="all")
    assert found.curves["doremi"].steps == [20, 30]
    assert found.curves["doremi"].average == pytest.approx([0.2, 0.3])
    folder = trained.folder(tmp_path, "doremi, seed 8")
    assert [(model, results) for model, _, results, _, _ in asked if folder in (model, model.parent)] == [
        (folder, folder / "tasks"), (folder / "checkpoint-20", folder / "tasks/checkpoint-20")
    ]  # fmt: skip


def test_without_tasks_nothing_is_asked(ask_all):
    assert ask_all() == (None, [])
