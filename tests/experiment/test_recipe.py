"""The recipe: defaults, overrides, and one clear error for every mistake."""

from __future__ import annotations

import pytest
import yaml

from doremi.errors import InputError, MissingFileError
from doremi.experiment import recipe

MINIMAL = {"corpus": {"inputs": [{"path": "x.jsonl", "domain_field": "d"}]}}


def write(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


def test_defaults_and_round_trip(tmp_path):
    first = recipe.parse(MINIMAL)
    assert (first.prior, first.target, first.verify.seeds, first.control) == ("natural", "uniform", 1, "natural")
    assert [item.label for item in first.named_methods] == ["natural", "uniform", "doremi"]
    (doremi,) = first.doremi_methods()
    assert (doremi.step_size, doremi.smoothing) == (1.0, 1e-3)
    again = recipe.load(write(tmp_path, first.to_yaml()))
    assert again == first
    assert again.digest == first.digest
    assert recipe.parse(MINIMAL | {"seed": 1}).digest != first.digest


def test_overrides_are_yaml_and_reach_nested_keys(tmp_path):
    path = write(tmp_path, yaml.safe_dump(MINIMAL))
    loaded = recipe.load(path, ["training.steps=7", "training.overrides.main={steps: 9}", "prior={a: 1, b: 3}"])
    assert loaded.training.for_run("proxy").steps == 7
    assert loaded.training.for_run("main").steps == 9
    assert loaded.prior == {"a": 1.0, "b": 3.0}


def test_model_shorthand():
    loaded = recipe.parse(MINIMAL | {"models": {"proxy": "tiny", "main": "org/model"}})
    assert loaded.models.proxy.preset == "tiny"
    assert loaded.models.main.path == "org/model"


def test_a_folder_of_a_plain_name_is_a_path_and_a_preset_stays_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"corpus": {"inputs": [{"path": "x"}]}, "models": {"reference": "gemma2", "main": "tiny"}}
    assert recipe.parse(content).models.reference.preset == "gemma2"  # refused later, with how to name a path
    for name in ("gemma2", "tiny"):
        (tmp_path / name).mkdir()
    loaded = recipe.parse(content)
    assert (loaded.models.reference.path, loaded.models.reference.preset) == ("gemma2", None)
    assert (loaded.models.main.path, loaded.models.main.preset) == (None, "tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainng": {}}, "trainng: unknown key; did you mean training?"),
        ({"training": {"step": 3}}, "training.step: unknown key; did you mean steps?"),
        ({"training": {"zzz": 3}}, "training.zzz: unknown key; valid keys here: steps, sequence_length"),
        ({"corpus": {"inputs": [{"path": "x", "domian": "a"}]}}, "corpus.inputs.0.domian: unknown key; did you mean"),
        ({"training": {"steps": 0}}, r"training.steps: Input should be greater than or equal to 1 \(got 0\)"),
        ({"methods": [{"doremi": {"smoothing": 1}}]}, "methods.0.doremi.smoothing: .*less than 1"),
        ({"corpus": {"inputs": [{}]}}, "exactly one of `path`, `dataset` and `reader`"),
        ({"corpus": {"inputs": [{"path": "x", "domain": "a", "domain_field": "b"}]}}, "not both"),
        ({"models": {"proxy": {"preset": "tiny", "path": "x"}}}, "exactly one of `preset` and `path`"),
        ({"training": {"overrides": {"main": {"stps": 1}}}}, "overrides.main: unknown setting 'stps'"),
        ({"corpus": {"inputs": [{"path": "x"}], "held_out_fraction": 0}}, "nothing is held out"),
        ({"corpus": None}, "corpus"),
    ],
)
def test_mistakes(change, message):
    with pytest.raises(InputError, match=message):
        recipe.parse(MINIMAL | change)


def test_a_missing_corpus_is_said_to_be_missing():
    with pytest.raises(InputError, match="corpus: required, but missing"):
        recipe.parse({})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "line 1, column 6"),
        ("- 1\n", "expected a mapping with the sections corpus, prior"),
        ("\x00", "not valid YAML"),
    ],
)
def test_not_a_recipe(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        recipe.load(write(tmp_path, text))


@pytest.mark.parametrize("override", ["training.steps", "=3", "training..steps=3", "training.steps=[1"])
def test_malformed_overrides(tmp_path, override):
    with pytest.raises(InputError, match="--set"):
        recipe.load(write(tmp_path, yaml.safe_dump(MINIMAL)), [override])


def test_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match="no such recipe"):
        recipe.load(tmp_path / "missing.yaml")


def test_every_field_is_described():
    described = {key: text for key, _, text in recipe.describe_fields()}
    assert {"corpus.inputs[].domain_field", "models.proxy.preset", "seed"} <= set(described)
    assert all(len(text) > 8 for text in described.values())
