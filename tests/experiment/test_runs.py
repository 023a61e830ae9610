"""The digest of a training run covers what the parameters depend on, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doremi import DomainWeights, files
from doremi.errors import InputError
from doremi.experiment import recipe, runs
from doremi.experiment.runs import Reference, TrainingRun
from doremi.methods.group_dro import GroupDRO
from doremi.methods.protocol import Scoring
from doremi.training.reference_cache import ReferenceCache

CONTENT = recipe.parse({"corpus": {"inputs": [{"path": "x"}]}})


@pytest.fixture
def run(tmp_path):
    return TrainingRun(
        name="proxy",
        folder=tmp_path / "proxy",
        model=CONTENT.models.proxy,
        training=CONTENT.training,
        evaluation=CONTENT.evaluation,
        names=("a", "b"),
        sampling_weights=DomainWeights({"a": 1, "b": 1}),
        seed=0,
        reference=Reference(tmp_path / "reference", "first", "auto", tmp_path / "losses"),
        policy=GroupDRO(),
    )


def test_a_change_of_any_input_changes_it(run):
    before = run.digest("corpus")
    changed = [
        run.digest("other corpus"),
        replace(run, seed=1).digest("corpus"),
        replace(run, names=("b", "a")).digest("corpus"),
        replace(run, sampling_weights=DomainWeights({"a": 1, "b": 2})).digest("corpus"),
        replace(run, training=CONTENT.training.model_copy(update={"steps": 3})).digest("corpus"),
        replace(run, policy=GroupDRO(step_size=2.0)).digest("corpus"),
        replace(run, policy=None).digest("corpus"),
        replace(run, scoring=Scoring(dtype="bfloat16")).digest("corpus"),
        replace(run, reference=replace(run.reference, digest="second")).digest("corpus"),
        replace(run, reference=replace(run.reference, attention="eager")).digest("corpus"),
    ]
    assert len({before, *changed}) == 11


def test_the_name_the_folder_and_the_threads_do_not(run, tmp_path):
    threads = CONTENT.training.model_copy(update={"num_threads": 7})
    moved = replace(run.reference, folder=tmp_path / "moved", losses=tmp_path / "moved losses")
    other = replace(run, name="main", folder=tmp_path / "elsewhere", training=threads, reference=moved)
    assert other.digest("corpus") == run.digest("corpus")


# ---- the key of the cached reference losses ----


class Store:
    """What `runs._reference_cache` reads of a corpus."""

    digest, tokenizer_digest = "corpus", "tokenizer"

    def num_sequences(self, name, sequence_length):
        return 4


def with_cache(run, tmp_path, **changes):
    training = CONTENT.training.model_copy(update=changes.pop("training", {}))
    scoring = replace(Scoring(cache="float32"), **changes.pop("scoring", {}))
    reference = replace(run.reference, losses=tmp_path / "losses", **changes.pop("reference", {}))
    return replace(run, reference=reference, training=training, scoring=scoring, **changes)


def test_reference_losses_are_read_again_by_a_run_that_would_compute_the_same(run, tmp_path):
    runs._reference_cache(with_cache(run, tmp_path), Store())
    same = {"steps": 7, "learning_rate": 1.0, "global_batch_size": 99, "arguments": {"optim": "sgd", "bf16": False}}
    runs._reference_cache(with_cache(run, tmp_path, training=same, seed=5), Store())
    key = files.read_json(tmp_path / "losses" / "manifest.json")["key"]
    assert key == {
        "reference": "first",
        "corpus": "corpus",
        "tokenizer": "tokenizer",
        "documents": "joined",
        "precision": "float32, float32, auto",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"arguments": {"bf16": True}}}, "key precision 'float32, float32, auto', this run has .* bf16"),
        ({"training": {"arguments": {"fp16": True}}}, "key precision .* this run has 'float32, fp16, auto'"),
        ({"scoring": {"dtype": "bfloat16"}}, "this run has 'bfloat16, float32, auto'"),
        ({"reference": {"attention": "eager"}}, "this run has 'float32, float32, eager'"),
        ({"training": {"documents": "separate"}}, "key documents 'joined', this run has 'separate'"),
        ({"training": {"sequence_length": 64}}, "sequence_length 128, this run has 64"),
        ({"scoring": {"cache": "float16"}}, "dtype 'float32', this run has 'float16'"),
        ({"names": ("a", "b", "c")}, "rows of domain 'c'"),
    ],
)
def test_reference_losses_that_would_be_other_numbers_are_refused(run, tmp_path, changes, message):
    runs._reference_cache(with_cache(run, tmp_path), Store())
    with pytest.raises(InputError, match=message):
        runs._reference_cache(with_cache(run, tmp_path, **changes), Store())


def test_reference_losses_of_another_model_or_corpus_are_refused(run, tmp_path):
    runs._reference_cache(with_cache(run, tmp_path), Store())
    for attribute in ("digest", "tokenizer_digest"):
        other = Store()
        setattr(other, attribute, "other")
        with pytest.raises(InputError, match="this run has 'other'"):
            runs._reference_cache(with_cache(run, tmp_path), other)
    with pytest.raises(InputError, match="key reference 'first', this run has 'second'"):
        runs._reference_cache(with_cache(run, tmp_path, reference={"digest": "second"}), Store())


def test_no_more_rows_are_expected_on_the_disk_than_the_run_draws(run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(ReferenceCache, "open", lambda folder, **settings: asked.append((folder, settings)))
    runs._reference_cache(with_cache(run, tmp_path, training={"steps": 7, "global_batch_size": 5}), Store())
    ((folder, settings),) = asked
    assert folder == tmp_path / "losses"
    assert settings["max_new_rows"] == 35
    assert settings["row_counts"] == {"a": 4, "b": 4}


# ---- a model that came trained is known by what is loaded of it ----


def test_the_digest_of_a_trained_model_is_that_of_the_files_that_are_loaded(tmp_path):
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "README.md"):
        (tmp_path / name).write_text("1")
    before = runs.model_digest(tmp_path)
    for name in ("pytorch_model.bin", "README.md"):  # a pickle is never read (tests/training/test_pretrained.py)
        (tmp_path / name).write_text("2")
    assert runs.model_digest(tmp_path) == before
    (tmp_path / "model.safetensors").write_text("2")
    changed = runs.model_digest(tmp_path)
    (tmp_path / "config.json").write_text("2")
    assert len({before, changed, runs.model_digest(tmp_path)}) == 3
