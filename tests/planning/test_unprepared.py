"""What can be planned before there is a corpus, and what is imagined of runs that are not trained."""

from __future__ import annotations

import itertools

import pytest

from doremi import DomainWeights
from doremi.experiment import unprepared
from doremi.methods import imagined
from doremi.methods.doremi import DoReMi
from doremi.methods.fixed import Fixed
from doremi.methods.protocol import Outcome
from tests.planning.recipes import make

RULES = ["natural", "uniform", "temperature(2)", "unimax", "unimax(100)", "natural(packed)"]


def test_rules_are_not_taken_for_each_other():
    """Whether two of them agree is not known before there is a corpus."""
    bench = unprepared.make(make())
    found = [Fixed(rule).answer(bench, []).weights for rule in RULES]
    for one, other in itertools.combinations(found, 2):
        assert max(abs(one[name] - other[name]) for name in bench.names) > 1e-6


def test_domains_are_those_that_the_recipe_names(tmp_path):
    DomainWeights({"c": 0.5, "d": 0.5}).to_json(tmp_path / "w.json")
    recipe = make(methods=[{"file": str(tmp_path / "w.json")}, {"doremi": {"min_weight": {"a": 0.1}}}], epochs={"b": 2})
    assert set(unprepared.named(recipe)) == {"a", "b", "c", "d"}
    assert unprepared.make(make(prior={"x": 1, "y": 3})).prior == {"x": 0.25, "y": 0.75}
    assert unprepared.make(make(epochs={"b": 2})).names == ("b", "domain 1")
    assert len(unprepared.make(make(prior="paper-280m")).names) == 22


def test_text_is_ample():
    bench = unprepared.make(make())
    assert len(imagined.asked(DoReMi(max_main_epochs=0.5, min_weight=0.2), bench)) == 2


def test_imagined_outcomes_differ_and_those_alike_hardly():
    bench = unprepared.make(make())
    (run,) = DoReMi(rounds=1).ask(bench, [])

    def largest(alike):
        first, second = (imagined.outcome(run, bench, number=number, alike=alike).nats for number in (0, 1))
        return max(abs(first[name] - second[name]) for name in first)

    assert largest(alike=False) > 0.01
    assert 0 < largest(alike=True) < 1e-8


@pytest.mark.parametrize("is_failed", [False, True])
def test_an_answer_is_known_once_all_runs_are(is_failed):
    bench = unprepared.make(make())

    def known(run):
        if is_failed and run.policy:
            return Outcome(run, failure="step 3: not finite")
        return imagined.outcome(run, bench, number=0)

    def half_known(run):
        return None if run.policy else known(run)

    assert (imagined.known_answer(DoReMi(), bench, known=known) is None) == is_failed
    assert imagined.known_answer(DoReMi(), bench, known=half_known) is None
    assert imagined.known_answer(Fixed("uniform"), bench).weights == {"domain 1": 0.5, "domain 2": 0.5}
