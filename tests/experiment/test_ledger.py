"""Which runs are trained, on what, in which folders: equal ones once, whoever asks and whatever they are called."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from doremi import files
from doremi.errors import InputError, NotFiniteError
from doremi.experiment import finished, ledger
from doremi.methods.protocol import Run, Scoring
from doremi.weights import DomainWeights, uniform
from tests import made_up, trained

ANSWER = DomainWeights({"a": 0.5, "b": 0.495, "c": 0.005})
SMALL = {"reference": {"preset": "tiny", "overrides": {"hidden_size": 16}}, "proxy": "tiny", "main": "tiny"}
HOSTILE = [
    "../x",
    "../../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "..",
    ".",
    "...",
    "~",
    "",
    " ",
    "x" * 300,
    "ä" * 300,
    "a\x00b",
    "a\nb\x1b[2J",
    "\u202egpj",
    "-rf",
    "*",
    "[a-z]",
    "?",
    "CON",
    "runs/reference-0123456789ab",
]


@pytest.fixture
def experiment(tmp_path):
    return made_up.make(tmp_path)


@pytest.fixture
def num_trained(monkeypatch):
    """The names of the models that were trained, each of which leaves a finished folder."""
    names = []

    def train(run, store, **_):
        names.append(run.name)
        num_rows = run.training.steps * run.training.global_batch_size
        files.write_marker(
            run.folder,
            {
                "digest": run.digest(store.digest),
                "steps": run.training.steps,
                "num_parameters": 1000,
                "num_tokens": run.training.num_tokens,
                "train_seconds": 1.0,
                "epochs": {},
                "rows": {name: round(weight * num_rows) for name, weight in run.sampling_weights.items()},
                "passes": {"trained": num_rows},
            },
        )
        files.write_json(run.folder / "history.json", [{"step": 30, "loss": 2.0}])

    monkeypatch.setattr(ledger.runs, "train", train)
    return names


def reference(experiment, **changes):
    return replace(Run("reference", 7, experiment.prior, label="reference"), **changes)


def proxies(experiment):
    """Those of the first round."""
    method = experiment.recipe.doremi_methods()[0]
    (first,) = method.ask(experiment.bench, [])
    made_up.finish(experiment, first)
    return method.ask(experiment.bench, [ledger.outcome(experiment, first)])


# ---- equal runs are one ----


def test_equal_runs_are_trained_once_whoever_asks(experiment, num_trained, caplog):
    caplog.set_level(logging.INFO)
    asked = [reference(experiment), reference(experiment, label="of somebody else"), reference(experiment, size="main")]
    first, second, third = ledger.train(experiment, asked)
    assert num_trained == ["reference"]
    assert first.realised == second.realised == third.realised == {"a": 108, "b": 54, "c": 18}
    assert first.history == second.history == third.history
    assert [outcome.run.label for outcome in (first, second)] == ["reference", "of somebody else"]
    assert trained.names(experiment.directory.root) == {"reference"}
    assert "of somebody else: finished earlier, skipped" in caplog.text
    assert ledger.train(experiment, asked[:1]) == [first]
    assert num_trained == ["reference"]


def test_the_label_names_a_new_folder_and_nothing_else(experiment):
    one, other = (ledger.training_run(experiment, reference(experiment, label=label)) for label in ("x", "y"))
    digest = one.digest(experiment.store.digest)
    assert (one.folder.name, other.folder.name) == (f"x-{digest[:12]}", f"y-{digest[:12]}")
    one.folder.mkdir(parents=True)
    assert ledger.training_run(experiment, reference(experiment, label="y")).folder == one.folder


@pytest.mark.parametrize("changes", [{"seed": 8}, {"weights": ANSWER}, {"steps": 31}, {"size": "proxy"}])
def test_another_input_is_another_folder(tmp_path, changes):
    experiment = made_up.make(tmp_path, training={"overrides": {"proxy": {"learning_rate": 1e-4}}})
    made_up.finish(experiment, reference(experiment))
    other = reference(experiment, **changes)
    assert ledger.outcome(experiment, other) is None
    assert ledger.training_run(experiment, other).folder != trained.folder(tmp_path, "reference")


@pytest.mark.parametrize(
    "sections",
    [
        {"training": {"learning_rate": 0.1}},
        {"models": SMALL},
        {"evaluation": {"max_tokens_during_training": 5}},
        {},
    ],
    ids=["rate", "model", "curve", "corpus"],
)
def test_another_recipe_or_corpus_is_another_folder(tmp_path, monkeypatch, sections):
    before = made_up.make(tmp_path)
    folder = made_up.finish(before, reference(before))
    if not sections:
        monkeypatch.setattr(made_up.Store, "digest", "corpus-2")
    after = made_up.make(tmp_path, **sections)
    assert ledger.training_run(after, reference(after)).folder != folder
    assert ledger.outcome(after, reference(after)) is None


def test_the_weights_are_compared_to_eleven_digits(experiment):
    """Rules that agree get there by different sums."""
    folders = {
        ledger.training_run(experiment, reference(experiment, weights=DomainWeights(weights))).folder
        for weights in ({"a": 1, "b": 1, "c": 1}, {"a": 1 + 1e-13, "b": 1, "c": 1}, {"a": 1 + 1e-9, "b": 1, "c": 1})
    }
    assert len(folders) == 2


def test_another_option_of_the_method_is_another_proxy_of_the_same_reference(tmp_path):
    (one,), (other,) = (proxies(made_up.make(tmp_path, doremi=options)) for options in ({}, {"step_size": 0.5}))
    experiment = made_up.make(tmp_path)
    first, second = ledger.training_run(experiment, one), ledger.training_run(experiment, other)
    assert first.folder != second.folder
    assert first.reference == second.reference
    assert first.reference.folder == trained.folder(tmp_path, "reference")


# ---- how they are trained ----


def test_a_reference_has_the_weights_of_its_round_and_no_policy(experiment):
    first = ledger.training_run(experiment, reference(experiment))
    second = ledger.training_run(experiment, reference(experiment, weights=ANSWER, label="reference, round 2"))
    assert (first.name, second.name) == ("reference", "reference, round 2")
    assert first.sampling_weights == {"a": 0.6, "b": 0.3, "c": 0.1}
    assert second.sampling_weights == pytest.approx(ANSWER)
    assert (first.seed, first.reference, first.policy, first.state) == (7, None, None, None)
    assert first.names == ("a", "b", "c")


def test_a_proxy_for_each_seed_shares_the_reference_of_its_round_and_its_losses(tmp_path):
    attention = {"reference": {"preset": "tiny", "attn_implementation": "eager"}}
    experiment = made_up.make(tmp_path, doremi={"seeds": 2, "reference_cache": True}, models=attention)
    asked = proxies(experiment)
    found = [ledger.training_run(experiment, run) for run in asked]
    assert [(run.name, run.seed) for run in found] == [("proxy", 7), ("proxy, seed 8", 8)]
    assert len({run.folder for run in found}) == 2
    assert len({run.reference.losses for run in found}) == 1
    for run in found:
        assert run.sampling_weights == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
        assert run.reference.folder == trained.folder(tmp_path, "reference")
        assert run.reference.digest == files.read_marker(run.reference.folder)["digest"]
        assert run.reference.attention == "eager"
        assert run.reference.losses.parent == tmp_path / "reference_losses"
        assert run.policy == experiment.recipe.doremi_methods()[0].policy(experiment.bench)
        assert run.scoring == Scoring("float32", "float32")


def test_losses_that_are_stored_otherwise_lie_elsewhere(tmp_path):
    experiment = made_up.make(tmp_path, doremi={"reference_cache": True})
    (run,) = proxies(experiment)
    losses = {
        ledger.training_run(experiment, replace(run, scoring=scoring)).reference.losses
        for scoring in (Scoring("float32", "float32"), Scoring("float32", "float16"), Scoring("bfloat16", "float32"))
    }
    assert len(losses) == 3


def test_each_size_has_its_own_model_and_settings(tmp_path):
    overrides = {"proxy": {"steps": 11}, "main": {"steps": 22}}
    experiment = made_up.make(tmp_path, models=SMALL, training={"steps": 33, "overrides": overrides})
    found = {size: ledger.training_run(experiment, Run(size, 7, ANSWER)) for size in ("reference", "proxy", "main")}
    assert {size: run.training.steps for size, run in found.items()} == {"reference": 33, "proxy": 11, "main": 22}
    assert {size: run.model.overrides for size, run in found.items()} == {
        "reference": {"hidden_size": 16}, "proxy": {}, "main": {}
    }  # fmt: skip
    assert ledger.training_run(experiment, Run("main", 7, ANSWER, steps=5)).training.steps == 5


def test_runs_are_scored_as_the_recipe_says_for_training(tmp_path):
    caps = {"max_tokens_per_domain": 50, "max_tokens_during_training": 5, "tasks": ["paper"]}
    experiment = made_up.make(tmp_path, evaluation=caps)
    run = ledger.training_run(experiment, reference(experiment))
    assert (run.evaluation.max_tokens_per_domain, run.evaluation.tasks) == (5, [])


# ---- what they leave ----


def test_what_is_not_finished_has_no_outcome(experiment):
    assert ledger.outcome(experiment, reference(experiment)) is None
    ledger.training_run(experiment, reference(experiment)).folder.mkdir(parents=True)
    assert ledger.outcome(experiment, reference(experiment)) is None


def test_the_state_of_the_policy_is_restored(experiment):
    (run,) = proxies(experiment)
    made_up.finish(experiment, run, objective=made_up.state_of(experiment, run, ANSWER))
    state = ledger.outcome(experiment, run).state
    assert dict(zip(state.names, state.average_weights, strict=True)) == pytest.approx(ANSWER)


def test_a_run_that_failed_is_an_outcome_and_not_trained_again(experiment, monkeypatch, caplog):
    tried = []

    def diverge(run, store, **_):
        tried.append(run.name)
        run.folder.mkdir(parents=True)
        raise NotFiniteError("step 3: the loss is nan")

    monkeypatch.setattr(ledger.runs, "train", diverge)
    caplog.set_level(logging.INFO)
    for _ in range(2):
        (outcome,) = ledger.train(experiment, [reference(experiment)])
        assert outcome.failure == "step 3: the loss is nan"
        assert (outcome.state, outcome.history, outcome.realised) == (None, (), {})
    assert tried == ["reference"]
    assert "reference: failed earlier, skipped" in caplog.text
    (folder,) = trained.folders(experiment.directory.root, "reference")
    assert [path.name for path in folder.iterdir()] == [finished.FAILED]
    other = reference(experiment, label="another name")
    assert ledger.outcome(experiment, other).failure == "step 3: the loss is nan"
    assert ledger.outcome(experiment, reference(experiment, seed=8)) is None


def test_a_run_of_other_inputs_in_its_folder_is_refused(experiment):
    """Two digests that begin alike, or a marker that was changed."""
    made_up.finish(experiment, reference(experiment), digest="another")
    with pytest.raises(InputError, match="was finished with other inputs than the recipe now asks for"):
        ledger.outcome(experiment, reference(experiment))


# ---- labels are untrusted text ----


@pytest.mark.parametrize("label", HOSTILE, ids=range(len(HOSTILE)))
def test_no_label_leaves_its_folder(experiment, num_trained, label):
    (outcome,) = ledger.train(experiment, [Run("main", 7, uniform(experiment.names), label=label)])
    assert outcome.run.label == label
    (folder,) = experiment.directory.runs.iterdir()
    assert folder.resolve().parent == experiment.directory.runs.resolve()
    assert {path.name for path in folder.iterdir()} == {"complete.json", "history.json"}
    assert len(folder.name) <= 80
    assert folder.name.isascii()
    assert folder.name.isprintable()
    assert not set(folder.name) & set("/\\*?[]~ ")
    assert not folder.name.startswith(("-", "."))
    assert ledger.outcome(experiment, outcome.run) == outcome


def test_labels_of_methods_are_readable_in_folders():
    assert [ledger.slug(label) for label in ("unimax(0.25)", "doremi, seed 1", "my/own.json")] == [
        "unimax(0.25)", "doremi-seed-1", "my-own.json"
    ]  # fmt: skip
