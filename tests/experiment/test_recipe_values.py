"""What a recipe can hold: the types of its keys, no infinities, dates, NULs or numbers beyond all sense."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from doremi import config
from doremi.corpus.config import CorpusConfig, InputConfig
from doremi.errors import InputError
from doremi.experiment import recipe
from doremi.training.config import TrainingConfig

CORPUS = {"inputs": [{"path": "x.jsonl", "domain": "a"}]}


def problem_of(section, **values):
    with pytest.raises(InputError) as caught:
        recipe.parse({"corpus": CORPUS, section: values})
    return str(caught.value)


@pytest.mark.parametrize(
    "value",
    [True, "3", "3.5", [1], {}, 1.5, float("inf"), float("nan"), 10**30, pytest.param(10**5000, id="digits"), "", b"3"],
)
@pytest.mark.parametrize(("section", "key"), [("training", "steps"), ("evaluation", "max_tokens_per_domain")])
def test_what_is_no_whole_number(section, key, value):
    assert f"{section}.{key}: " in problem_of(section, **{key: value})


@pytest.mark.parametrize(
    "value", [True, "0.5", "x", float("inf"), -float("inf"), float("nan"), pytest.param(10**400, id="digits"), [1]]
)
@pytest.mark.parametrize(
    ("section", "key"),
    [("training", "learning_rate"), ("training", "max_epochs"), ("training", "max_grad_norm")],
)
def test_what_is_no_number(section, key, value):
    assert f"{section}.{key}: " in problem_of(section, **{key: value})


@pytest.mark.parametrize("value", [True, "1", float("nan"), None])
def test_weights_are_numbers(value):
    assert "prior" in problem_of("prior", a=value, b=1)


@pytest.mark.parametrize("value", [True, "0.5", "x", [1]])
@pytest.mark.parametrize("key", ["step_size", "tolerance", "max_main_epochs"])
def test_what_is_no_number_in_the_options_of_a_method(key, value):
    with pytest.raises(InputError, match=rf"methods.0.doremi.{key}: "):
        recipe.parse({"corpus": CORPUS, "methods": [{"doremi": {key: value}}]})


def test_numbers_as_people_write_them():
    """YAML 1.1 takes 1e-3 for text; it has always been accepted here."""
    training = recipe.parse(
        {"corpus": CORPUS, "training": {"learning_rate": "1e-3", "steps": 200.0, "max_epochs": 4}}
    ).training
    assert (training.learning_rate, training.steps, training.max_epochs) == (1e-3, 200, 4.0)
    assert [type(value) for value in (training.learning_rate, training.steps, training.max_epochs)] == [
        float,
        int,
        float,
    ]


@pytest.mark.parametrize(
    "value", [datetime.date(2020, 1, 1), b"x", {1}, float("inf"), 10**100, "a\0b", "\udcff", {"x": [float("nan")]}]
)
def test_no_value_at_any_depth(value):
    """In keys of any type, which are passed on to libraries."""
    assert "training.arguments.deep.0" in problem_of("training", arguments={"deep": [value]})


@pytest.mark.parametrize("key", [1, None, datetime.date(2020, 1, 1), "a\0"])
def test_keys_are_text(key):
    assert "training" in problem_of("training", arguments={key: 1})


@pytest.mark.parametrize(
    ("section", "key"),
    [("training", "steps"), ("training", "global_batch_size"), ("verify", "seeds"),
     ("corpus", "num_workers"), ("training", "sequence_length"), ("training", "num_threads")],
)  # fmt: skip
def test_numbers_that_no_machine_has_room_or_time_for(section, key):
    content = {"corpus": CORPUS}
    content[section] = content.get(section, {}) | {key: 10**13}
    with pytest.raises(InputError, match=rf"{section}.{key}.*: Input should be less than or equal to \d"):
        recipe.parse(content)


def test_many_problems_are_not_many_lines():
    lines = problem_of("prior", **{f"d{number}": float("inf") for number in range(100)}).split("\n")
    assert len(lines) == 1 + recipe.MAX_PROBLEMS_SHOWN + 1
    assert lines[-1] == "  and 85 more"


def test_control_characters_of_keys_are_escaped():
    assert "training.\\x1b[2J: unknown key" in problem_of("training", **{"\x1b[2J": 1})


@pytest.mark.parametrize("text", ["training: {steps: 3, steps: 4}", "seed: 1\ncorpus: {}\nseed: 2"])
def test_a_key_given_twice(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(
        InputError, match=r"r.yaml: not valid YAML: line \d, column \d+: key '(steps|seed)' is given twice"
    ):
        recipe.load(tmp_path / "r.yaml")


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config.expand_home({"a": ["~/x", "~", "a~/b"], "b": 3}) == {
        "a": [f"{tmp_path}/x", "~", "a~/b"],
        "b": 3,
    }


# ---- inputs ----


def input_files(*paths, held_out=(), **settings):
    from doremi.corpus.reading.inputs import input_files as listed

    def inputs(found):
        return [InputConfig(path=str(path), domain="a", **settings) for path in found]

    return listed(CorpusConfig(inputs=inputs(paths), held_out_inputs=inputs(held_out)))


@pytest.mark.parametrize("other", ["a.jsonl", "*.jsonl", "./a.jsonl", "link.jsonl", "hard.jsonl", "."])
def test_the_same_text_twice(tmp_path, other):
    """Named twice, by a pattern or a folder, through a link: its tokens would count twice."""
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    if other == "link.jsonl":
        (tmp_path / other).symlink_to("a.jsonl")
    if other == "hard.jsonl":
        (tmp_path / other).hardlink_to(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match=r"is an input twice, so that its text would count twice; name it once"):
        input_files(tmp_path / "a.jsonl", f"{tmp_path}/{other}")


def test_two_fields_of_one_file_and_the_other_side_are_no_doubles(tmp_path):
    from doremi.corpus.reading.inputs import input_files as listed

    (tmp_path / "a.jsonl").write_text('{"question": "x", "answer": "y"}\n')
    inputs = [
        InputConfig(path=str(tmp_path / "a.jsonl"), domain=field, text_field=field) for field in ("question", "answer")
    ]
    assert len(listed(CorpusConfig(inputs=inputs))) == 2
    assert len(input_files(tmp_path / "a.jsonl", held_out=[tmp_path / "a.jsonl"])) == 2


READERS = {
    "def read(a): yield 'x', 'y'": "failed with TypeError",
    "def read(): return 'ab'": "returned str; it must be a function without arguments",
    "def read(): return {'a': 'b'}": "returned dict",
    "def read(): 1 / 0": "failed with ZeroDivisionError: division by zero at .*:1; correct the reader",
    "def read():\n yield 'a', 'b'\n raise OSError('gone')": "after item 1: failed with OSError: gone at .*:3",
    "def read():\n yield 'a', 'b'\n raise SystemExit(0)": "after item 1: failed with SystemExit: 0",
    "raise ValueError('x')": "failed with ValueError: x",
    "def read(:": "failed with SyntaxError",
    "import nothing_of_this_name": "cannot import",
    "class E(Exception):\n def __str__(s): raise ValueError\ndef read():\n raise E\n yield": "failed with E at",
}


@pytest.mark.parametrize("number", range(len(READERS)))
def test_readers_that_are_none(tmp_path, monkeypatch, number):
    from doremi.corpus.reading import documents
    from doremi.corpus.reading.inputs import InputFile, Kind

    source, message = list(READERS.items())[number]
    name = f"reader_that_is_none_{number}"
    Path(tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        list(documents.read(InputFile(Kind.READER, InputConfig(reader=f"{name}:read"))))


def test_overrides_of_a_run_are_held_to_the_same():
    with pytest.raises(InputError, match=r"training.overrides|steps"):
        recipe.parse({"corpus": CORPUS, "training": {"overrides": {"main": {"steps": True}}}})
    assert TrainingConfig(overrides={"main": {"steps": 3}}).for_run("main").steps == 3
