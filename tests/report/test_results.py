import json
import re

import pytest

from doremi.errors import InputError, MissingFileError
from doremi.evidence.build import build
from doremi.evidence.outcomes import Outcome
from doremi.evidence.results_file import load, parse, write
from doremi.report import sentences

from .synthetic import make_results, make_study


def changed(results, path, value):
    """A copy of ``results`` with the value at ``path`` replaced; ... removes it."""
    copy = json.loads(json.dumps(results))
    target = copy
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return copy


def test_arms_start_with_the_control_whatever_the_order_of_the_file():
    results = make_results(4, arms=("uniform", "doremi", "unimax", "natural"), control="natural")
    assert list(results["arms"]) == ["natural", "uniform", "doremi", "unimax"]
    other = parse(results | {"arms": dict(reversed(results["arms"].items()))})
    assert other.arm_names == ["natural", "unimax", "doremi", "uniform"]


def test_every_float_may_be_null(results):
    copy = json.loads(json.dumps(results), parse_float=lambda text: None)
    assert parse(copy).arms["doremi"].mean_nats("stdlib") is None


def test_keys_of_later_writers_are_ignored(results):
    assert parse(results | {"later": {"lambada": 0.3}}).verdict == results["verdict"]


def test_parts_that_a_file_may_lack(results):
    parts = ("comparisons", "recommendation", "verify", "searches", "tasks")
    parsed = parse({key: value for key, value in results.items() if key not in parts})
    assert (parsed.comparisons, parsed.headline, parsed.lead) == ([], None, "natural")
    assert (parsed.recommendation, parsed.searches, parsed.tasks) == (None, {}, None)


def test_results_are_read_as_they_are_worked_out(tmp_path):
    results = build(make_study(12, arms=("natural", "doremi", "reference_without_floor")))
    assert isinstance(next(iter(results.searches["doremi"].explained.summaries["uniform_mean"].by_seed)), int)
    write(tmp_path / "results.json", results)
    assert load(tmp_path) == results


def test_the_headline_is_against_the_control_wherever_it_stands(results):
    found = parse(results | {"comparisons": results["comparisons"][::-1]}).headline
    assert (found.tuned, found.baseline) == ("uniform", "natural")
    found = parse(results | {"comparisons": results["comparisons"][:1:-1] + results["comparisons"][:1]}).headline
    assert (found.tuned, found.baseline) == ("doremi", "natural")


def test_every_outcome_has_a_word():
    assert list(sentences.OUTCOMES) == list(Outcome)


def test_files_of_format_1_say_what_to_do(tmp_path):
    (tmp_path / "results.json").write_text('{"format": 1, "runs": {}}')
    with pytest.raises(
        InputError, match=r"results\.json: of format 1, .* reads format 2; run `doremi evaluate RECIPE`"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], 3, r"'format': Input should be 2"),
        (["verdict"], ..., r"'verdict': Field required"),
        (["domains", "stdlib", "tokens"], "many", r"'domains'\.'stdlib'\.'tokens': Input should be a valid integer"),
        (["domains", "stdlib", "tokens"], "12", r"'tokens': Input should be a valid integer"),
        (["arms", "doremi", "nats", "stdlib", 0], float("inf"), r"'stdlib'\.0: Input should be a finite number"),
        (["arms", "doremi", "nats", "stdlib"], [1.0], r"'arms'\.'doremi': .*'stdlib' has 1 values for 3 seeds"),
        (["arms", "doremi", "summaries", "worst"], [], r"'worst' has 0 values for 3 seeds"),
        (["arms", "doremi"], ..., r"'doremi' is no arm; there are \['natural', 'uniform'\]"),
        (["arms", "doremi", "same_as"], "nobody", r"same_as of 'doremi': 'nobody' is no arm"),
        (["control"], "nobody", r"control: 'nobody' is no arm"),
        (["recommendation", "arm"], "nobody", r"recommendation: 'nobody' is no arm"),
        (["target"], "least", r"'target'"),
        (["verify", "size"], "huge", r"'size': Input should be 'reference', 'proxy' or 'main'"),
        (["arms", "doremi", "curve", "nats", "stdlib"], [1.0], r"'stdlib' has 1 values for 21 steps"),
        (["arms", "doremi", "curve", "summaries", "worst"], [1.0], r"'worst' has 1 values for 21 steps"),
        (["searches", "doremi", "trajectory", "excess_losses", "stdlib"], [], r"'stdlib' has 0 values for 240 steps"),
        (["comparisons", 0, "domains", "stdlib", "outcome"], "great", r"'outcome': Input should be 'better', 'worse'"),
        (["comparisons", 0, "summaries", "worst"], ..., r"no difference in worst"),
        (["comparisons", 0, "documents", "domains", "stdlib"], ..., r"comparison of 'doremi' has other domains"),
        (["comparisons", 1, "tuned"], "nobody", r"comparisons: 'nobody' is no arm"),
        (["comparisons", 0, "summaries", "worst", "low"], None, r"an interval needs a value and both ends"),
        (["arms", "doremi", "curve", "by_seed", "1", "worst"], [1.0], r"'worst' has 1 values for 21 steps"),
        (["searches", "doremi", "cost", "main"], "1", r"'cost'\.'main': Input should be a valid number"),
        (["provenance"], None, r"'provenance': Input should be a valid dictionary"),
    ],
)
def test_what_breaks_the_schema_is_named(results, path, value, message):
    with pytest.raises(InputError, match=message) as caught:
        parse(changed(results, path, value), source="runs/demo/results.json")
    assert str(caught.value).startswith("runs/demo/results.json: not the results of an experiment")
    assert "doremi evaluate" in str(caught.value)


def test_only_the_first_problems_are_listed():
    with pytest.raises(InputError, match=r"\(and \d+ more\)") as caught:
        parse({"format": 2})
    assert str(caught.value).count("Field required") == 3


def test_names_in_messages_cannot_steer_the_terminal():
    results = make_results(names=["a", "b\x1b[2J"])
    with pytest.raises(InputError, match=re.escape(r"'b\x1b[2J'")):
        parse(changed(results, ["domains", "b\x1b[2J", "tokens"], None))


def test_missing_folder_and_file_are_told_apart(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere: no such run directory; `doremi run RECIPE` makes one"):
        load(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match=r"results\.json: no such file; `doremi evaluate RECIPE` writes it"):
        load(tmp_path)


def test_malformed_json_is_located(tmp_path):
    (tmp_path / "results.json").write_text('{"format": 2,\n "domains": }')
    with pytest.raises(InputError, match=r"results\.json:2:13: not valid JSON"):
        load(tmp_path)


def test_nan_is_not_accepted_from_a_file(tmp_path, results):
    (tmp_path / "results.json").write_text(
        json.dumps(changed(results, ["arms", "doremi", "train_flops"], float("nan")))
    )
    with pytest.raises(InputError, match=r"'train_flops': Input should be a finite number"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_json_of_another_kind(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match="the file: Input should be a valid dictionary"):
        load(tmp_path)
