"""The digest of a training run covers what the parameters depend on, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doremi import DomainWeights, files, recipe
from doremi.runs import TrainingRun

CONTENT = recipe.parse({"corpus": {"inputs": [{"path": "x"}]}})


@pytest.fixture
def run(tmp_path):
    files.write_marker(tmp_path / "reference", {"digest": "first"})
    return TrainingRun(
        name="proxy",
        folder=tmp_path / "proxy",
        model=CONTENT.models.proxy,
        training=CONTENT.training,
        evaluation=CONTENT.evaluation,
        names=("a", "b"),
        sampling_weights=DomainWeights({"a": 1, "b": 1}),
        seed=0,
        reference=tmp_path / "reference",
        reweighting=CONTENT.reweighting,
    )


def test_a_change_of_any_input_changes_it(run):
    before = run.digest("corpus")
    changed = [
        run.digest("other corpus"),
        replace(run, seed=1).digest("corpus"),
        replace(run, names=("b", "a")).digest("corpus"),
        replace(run, sampling_weights=DomainWeights({"a": 1, "b": 2})).digest("corpus"),
        replace(run, training=CONTENT.training.model_copy(update={"steps": 3})).digest("corpus"),
        replace(run, reweighting=CONTENT.reweighting.model_copy(update={"step_size": 2.0})).digest("corpus"),
    ]
    files.write_marker(run.reference, {"digest": "second"})  # another reference model in the same folder
    changed.append(run.digest("corpus"))
    assert len({before, *changed}) == 8


def test_the_name_the_folder_and_the_threads_do_not(run, tmp_path):
    threads = CONTENT.training.model_copy(update={"num_threads": 7})
    other = replace(run, name="main", folder=tmp_path / "elsewhere", training=threads)
    assert other.digest("corpus") == run.digest("corpus")
