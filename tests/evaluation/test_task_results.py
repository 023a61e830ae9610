"""Results of tasks: paired by document, averaged, and kept on disk."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from doremi.errors import InputError
from doremi.evaluation import task_results
from doremi.evaluation.task_results import TaskResult, average, average_over_documents, over_documents

NUM_DRAWS = 2_000


def result(values, **changes):
    values = np.asarray(values, float)
    fields = {
        "task": "qa",
        "metric": "exact_match",
        "value": float(values.mean()) if len(values) else 1.0,
        "standard_error": float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None,
        "num_documents": len(values),
        "num_fewshot": 1,
        "num_truncated": 0,
        "higher_is_better": True,
        "version": "1.0",
        "prompts_digest": "prompts",
        "scores": {str(index): float(value) for index, value in enumerate(values)},
    }
    return TaskResult(**fields | changes)


def test_scipys_paired_t_by_document():
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    baseline = result(before)
    shuffled = dict(reversed(baseline.scores.items()))  # paired by document, not by place
    found = over_documents(result(after), baseline=result(before, scores=shuffled))
    scipys = stats.ttest_rel(after, before)
    assert found.value == pytest.approx(after.mean() - before.mean())
    assert found.p_value == pytest.approx(scipys.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(scipys.confidence_interval(0.95)), rel=1e-9)
    assert found.method == "paired t over documents (n=200)"


@pytest.mark.parametrize(
    ("after", "method"),
    [
        ([1] * 29, "none: 29 of the 30 documents that an interval needs"),
        ([1] * 9 + [0] * 91, "none: 9 of 100 documents differ in score, an interval needs 10"),
        ([1] * 40, "none: the difference is the same in all 40 documents"),
    ],
)
def test_no_interval_and_why(after, method):
    found = over_documents(result(after), baseline=result(np.zeros(len(after))))
    assert (found.low, found.high, found.p_value, found.method) == (None, None, None, method)
    assert found.value == pytest.approx(np.mean(after))


def test_a_metric_that_is_no_mean_has_no_interval():
    tuned, baseline = (result([], metric="word_perplexity", value=value) for value in (11.0, 12.5))
    found = over_documents(tuned, baseline=baseline)
    assert (found.value, found.method) == (-1.5, "none: word_perplexity is no mean over documents")


@pytest.mark.parametrize(("num_documents", "differing"), [(30, 0.5), (100, 0.15), (400, 0.05)])
@pytest.mark.parametrize("in_favour", [0.5, 0.75])
def test_coverage(num_documents, differing, in_favour):
    """Nominal 95 %, of scores 0 and 1 of which a share differs; measured: 94 to 97 % of the intervals shown."""
    rng = np.random.default_rng(num_documents)
    truth = differing * (2 * in_favour - 1)
    shown = []
    for _ in range(NUM_DRAWS):
        draws = rng.random(num_documents)
        after = draws < differing * in_favour
        before = (draws >= differing * in_favour) & (draws < differing)
        found = over_documents(result(after), baseline=result(before))
        if found.low is not None:
            shown.append(found.low <= truth <= found.high)
    assert len(shown) > 0.5 * NUM_DRAWS
    assert 0.92 <= np.mean(shown) <= 0.98


def models(**scores):
    """Two models by task: the first scores what is given, the second 0."""
    tuned = {task: result(values, task=task) for task, values in scores.items()}
    return tuned, {task: result(np.zeros(len(values)), task=task) for task, values in scores.items()}


def test_average_of_two_tasks_is_welchs_test():
    """The average of x and −y is half of Welch's two-sample difference."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 40), rng.normal(0, 4, 25)
    tuned, baseline = models(x=x, y=-y)
    found = average_over_documents(tuned, baseline=baseline)
    welch = stats.ttest_ind(x / 2, y / 2, equal_var=False)
    low, high = welch.confidence_interval(0.95)
    assert found.p_value == pytest.approx(welch.pvalue, rel=1e-9)
    assert (found.value, found.low, found.high) == pytest.approx((x.mean() / 2 - y.mean() / 2, low, high), rel=1e-9)
    assert found.method == "paired t over documents within tasks (n=65 in 2 tasks)"


def test_average_with_tasks_that_tell_nothing():
    """No score differs in one, another is no mean over documents, a third was done by one of the models only."""
    gain = [1] * 12 + [0] * 28
    tuned, baseline = models(gain=gain, same=[0] * 60, perplexity=[], other=[1] * 50)
    del baseline["other"]
    found = average_over_documents(tuned, baseline=baseline)
    alone = over_documents(tuned["gain"], baseline=baseline["gain"])
    assert (found.value, found.low, found.high) == pytest.approx((alone.value / 2, alone.low / 2, alone.high / 2))
    assert found.method == "paired t over documents within tasks (n=100 in 2 tasks)"


@pytest.mark.parametrize(
    ("scores", "method"),
    [
        ({"a": [1] * 5 + [0] * 15, "b": [1] * 9}, "none: 29 of the 30 documents that an interval needs"),
        (
            {"a": [1] * 5 + [0] * 95, "b": [1] * 4 + [0] * 6},
            "none: 9 of 110 documents differ in score, an interval needs 10",
        ),
        ({"a": [1] * 20 + [0] * 20, "b": [1]}, "none: a task has one document"),
        ({"a": [1] * 20, "b": [1] * 20}, "none: the difference is the same in all documents of each task"),
    ],
)
def test_averages_without_interval(scores, method):
    tuned, baseline = models(**scores)
    found = average_over_documents(tuned, baseline=baseline)
    assert (found.value, found.low, found.method) == (average(tuned.values()).value, None, method)


def test_averages_of_nothing_in_common():
    tuned, baseline = models(a=[1.0], perplexity=[])
    with pytest.raises(InputError, match="did no task in common that has a score by document"):
        average_over_documents(tuned, baseline={"perplexity": baseline["perplexity"]})


def test_other_prompts_are_refused():
    with pytest.raises(InputError, match=r"qa: the two models were not asked the same \(prompts: other and prompts\)"):
        over_documents(result([1.0], prompts_digest="other"), baseline=result([1.0]))
    with pytest.raises(InputError, match=r"\(metric: acc and exact_match\)"):
        over_documents(result([1.0], metric="acc"), baseline=result([1.0]))


def test_average_of_tasks():
    results = [
        result([1, 1, 0, 0], task="a"),
        result([1, 0], task="b"),
        result([1, 1, 1, 0], task="c"),
        result([], task="no mean over documents", value=30.0),
        result([3.0, 4.0], task="lower is better", higher_is_better=False),
    ]
    found = average(results)
    assert found.value == pytest.approx((0.5 + 0.5 + 0.75) / 3)
    variances = (1 / 3 / 4, 1 / 2 / 2, 1 / 4 / 4)
    assert found.standard_error == pytest.approx(sum(variances) ** 0.5 / 3)
    assert found.tasks == ("a", "b", "c")
    assert average([*results, result([1], task="one document")]).standard_error is None
    assert average(results[3:]) is None


def test_written_results_are_read_under_the_same_key(tmp_path):
    written = result([1, 0, 0.5], task="a/../é")
    task_results.write(tmp_path, written, key="k")
    assert task_results.read(tmp_path, written.task, key="k") == written
    assert task_results.read(tmp_path, written.task, key="other") is None
    assert task_results.read(tmp_path, "another", key="k") is None
    (file,) = tmp_path.iterdir()
    assert pq.read_table(file).to_pydict() == {"document": ["0", "1", "2"], "score": [1.0, 0.0, 0.5]}
    assert json.loads(json.dumps(written.to_dict())).keys() == vars(written).keys() - {"scores"}
    file.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"not a Parquet file of scores .*delete it"):
        task_results.read(tmp_path, written.task, key="k")
