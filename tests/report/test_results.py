import json
import re
from typing import get_args

import pytest

from doremi.errors import InputError, MissingFileError
from doremi.evidence import outcomes, schema, statistics, verdict
from doremi.evidence.recorded_results import load, parse
from doremi.report import comparisons, sentences

from .synthetic import make_results


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


def test_runs_start_with_baseline_and_main_whatever_the_order_of_the_file():
    results = make_results(4, runs=("uniform", "main", "natural", "baseline"))
    assert parse(results).run_names == ["baseline", "main", "uniform", "natural"]


def test_every_float_may_be_null(results):
    copy = json.loads(json.dumps(results), parse_float=lambda text: None)
    assert parse(copy).domains["stdlib"].nats == {"baseline": None, "main": None, "uniform": None}


def test_keys_of_later_writers_are_ignored(results):
    assert parse(results | {"later": {"lambada": 0.3}}).verdict == results["verdict"]


def test_parts_that_a_run_may_lack(results):
    parts = ("curves", "trajectory", "convergence", "comparisons", "control", "cost", "costs", "alarms")
    parsed = parse({key: value for key, value in results.items() if key not in parts})
    assert (parsed.curves, parsed.trajectory, parsed.convergence) == ({}, None, None)
    assert (parsed.comparisons, parsed.headline, parsed.control, parsed.cost) == ([], None, None, None)


def test_runs_of_older_files_have_one_seed(results):
    older = changed(changed(results, ["runs", "main", "seeds"], ...), ["runs", "main", "by_seed"], ...)
    assert parse(older).runs["main"].all_seeds == [0]


def test_results_are_read_as_they_are_worked_out_and_as_they_are_written():
    results = make_results(12, runs=("baseline", "main", "reference_without_floor"))
    assert isinstance(next(iter(results["control"]["uniform_mean"]["by_seed"])), int)
    assert parse(results) == parse(json.loads(json.dumps(results)))


def test_the_headline_is_main_against_baseline_wherever_it_stands(results):
    found = parse(results | {"comparisons": results["comparisons"][::-1]}).headline
    assert (found.tuned, found.baseline) == ("main", "baseline")


def test_summaries_and_outcomes_are_those_of_the_evaluation():
    assert schema.SUMMARIES == verdict.SUMMARIES
    assert next(iter(schema.SUMMARIES)) == verdict.PRIMARY
    assert list(get_args(schema.Outcome)) == [outcome.value for outcome in outcomes.Outcome]
    assert list(sentences.OUTCOMES) == list(get_args(schema.Outcome))
    assert comparisons.MIN_SEEDS == statistics.MIN_SEEDS


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], 2, r"'format': Input should be 1"),
        (["verdict"], ..., r"'verdict': Field required"),
        (["domains", "stdlib", "tokens"], "many", r"'domains'\.'stdlib'\.'tokens': Input should be a valid integer"),
        (["domains", "stdlib", "tokens"], "12", r"'tokens': Input should be a valid integer"),
        (["domains", "stdlib", "nats", "main"], float("inf"), r"'nats'\.'main': Input should be a finite number"),
        (["runs", "main"], ..., r"no run named 'main'; there are \['baseline', 'uniform'\]"),
        (["curves", "main", "nats", "stdlib"], [1.0], r"'stdlib' has 1 values for 21 steps"),
        (["curves", "main", "worst_nats"], [1.0], r"'worst_nats' has 1 values for 21 steps"),
        (["trajectory", "excess_losses", "stdlib"], [], r"'stdlib' has 0 values for 240 steps"),
        (["comparisons", 0, "domains", "stdlib", "outcome"], "great", r"'outcome': Input should be 'better', 'worse'"),
        (["comparisons", 0, "summaries", "worst"], ..., r"no difference in worst"),
        (["comparisons", 0, "documents", "domains", "stdlib"], ..., r"comparison of 'main' has other domains"),
        (["comparisons", 1, "tuned"], "nobody", r"a comparison of 'nobody', which is no run"),
        (["comparisons", 0, "summaries", "worst", "low"], None, r"an interval needs a value and both ends"),
        (["curves", "main", "by_seed", "1", "worst_nats"], [1.0], r"'worst_nats' has 1 values for 21 steps"),
        (["cost", "main"], "1", r"'cost'\.'main': Input should be a valid number"),
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
        parse({"format": 1})
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
    (tmp_path / "results.json").write_text('{"format": 1,\n "domains": }')
    with pytest.raises(InputError, match=r"results\.json:2:13: not valid JSON"):
        load(tmp_path)


def test_nan_is_not_accepted_from_a_file(tmp_path, results):
    (tmp_path / "results.json").write_text(json.dumps(changed(results, ["steps_to_match"], float("nan"))))
    with pytest.raises(InputError, match=r"'steps_to_match': Input should be a finite number"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_json_of_another_kind(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match="the file: Input should be a valid dictionary"):
        load(tmp_path)
