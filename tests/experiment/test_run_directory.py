"""Whose run directory it is: another recipe is refused, one that asks for the same runs is not."""

from __future__ import annotations

import pytest
import yaml

from doremi.errors import InputError
from doremi.experiment import recipe
from doremi.experiment.run_directory import RunDirectory

CONTENT = {"corpus": {"inputs": [{"path": "a.jsonl", "domain": "a"}]}, "training": {"steps": 10}}


def changed(section, **values):
    return recipe.parse(CONTENT | {section: CONTENT.get(section, {}) | values})


def with_keys(**keys):
    return recipe.parse(CONTENT | keys)


@pytest.fixture
def directory(tmp_path):
    """In which training was begun."""
    claimed = RunDirectory(tmp_path / "run")
    claimed.claim(recipe.parse(CONTENT))
    (claimed.runs / "reference-0123456789ab").mkdir(parents=True)
    return claimed


@pytest.mark.parametrize(
    ("section", "values", "key"),
    [
        ("training", {"steps": 11}, "training.steps"),
        (
            "models",
            {"proxy": {"preset": "tiny", "overrides": {"hidden_size": 8}}, "main": "tiny", "reference": "tiny"},
            "models.proxy.overrides.hidden_size",
        ),
        ("evaluation", {"max_tokens_during_training": 7}, "evaluation.max_tokens_during_training"),
    ],
)
def test_another_recipe_is_refused(directory, section, values, key):
    with pytest.raises(InputError, match=f"belongs to another recipe: {key} differs"):
        directory.claim(changed(section, **values))
    assert yaml.safe_load(directory.recipe.read_text())["training"]["steps"] == 10


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("verify", {"seeds": 3, "size": "proxy"}),
        ("evaluation", {"tasks": ["paper"], "num_fewshot": 0}),
        ("training", {"num_threads": 1, "reading": "ahead"}),
        ("corpus", {"num_workers": 3}),
        ("cluster", {"gpus_per_node": 2}),
    ],
)
def test_what_leaves_finished_runs_valid_may_change(directory, section, values):
    directory.claim(changed(section, **values))
    found = yaml.safe_load(directory.recipe.read_text())[section]
    assert {key: found[key] for key in values} == values


@pytest.mark.parametrize(
    "keys",
    [
        {"methods": ["uniform", {"doremi": {"rounds": 2}}]},
        {"target": "worst"},
        {"models": {"reference": "tiny", "main": {"preset": "tiny", "overrides": {"hidden_size": 8}}}},
        {"training": {"steps": 10, "overrides": {"main": {"steps": 99}}}},
    ],
)
def test_other_methods_targets_and_main_models_are_other_runs_in_the_same_directory(directory, keys):
    directory.claim(with_keys(**keys))
    assert recipe.load(directory.recipe) == with_keys(**keys)


def test_another_prior_is_another_search(directory):
    with pytest.raises(InputError, match="belongs to another recipe: prior differs"):
        directory.claim(with_keys(prior="uniform"))


def test_the_cap_of_the_end_may_change_where_training_has_one_of_its_own(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.claim(changed("evaluation", max_tokens_per_domain=9, max_tokens_during_training=5))
    (directory.runs / "reference-0123456789ab").mkdir(parents=True)
    directory.claim(changed("evaluation", max_tokens_per_domain=7, max_tokens_during_training=5))
    directory.claim(changed("evaluation", max_tokens_per_domain=5))  # the same cap during training
    with pytest.raises(InputError, match=r"another recipe: evaluation.max_tokens_during_training differs"):
        directory.claim(changed("evaluation", max_tokens_per_domain=4))
    assert yaml.safe_load(directory.recipe.read_text())["evaluation"]["max_tokens_per_domain"] == 5


def test_a_key_that_is_new_has_its_default_in_older_directories(directory):
    content = yaml.safe_load(directory.recipe.read_text())
    del content["training"]["decay_fraction"]
    directory.recipe.write_text(yaml.safe_dump(content))
    directory.claim(recipe.parse(CONTENT))
    with pytest.raises(InputError, match=r"training.decay_fraction differs"):
        directory.claim(changed("training", decay_fraction=0.5))


def test_a_key_that_is_gone_is_named(directory):
    content = yaml.safe_load(directory.recipe.read_text())
    content["training"]["momentum"] = 0.9
    directory.recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"training.momentum differs"):
        directory.claim(recipe.parse(CONTENT))


def test_something_else_is_no_run_directory(tmp_path):
    (tmp_path / "recipe.yaml").write_text("[1, 2")
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match="not a recipe; is this directory a run directory of doremi"):
        RunDirectory(tmp_path).claim(recipe.parse(CONTENT))


def test_a_mended_recipe_takes_over_where_nothing_was_done(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.claim(recipe.parse(CONTENT))
    directory.claim(changed("training", steps=11))
    assert yaml.safe_load(directory.recipe.read_text())["training"]["steps"] == 11
