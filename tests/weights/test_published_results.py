"""What is published under docs/results follows from the files beside it."""

from __future__ import annotations

import pytest

from doremi.evidence.results_file import load
from doremi.experiment import recipe
from doremi.report.markdown import render_markdown
from doremi.report.render import epoch_limit
from tests.processes import ROOT

FOLDER = ROOT / "docs" / "results" / "minipile"
README = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results():
    return load(FOLDER)


def test_the_recipe_is_the_one_that_was_run(results):
    asked = recipe.load(FOLDER / "recipe.yaml")
    assert list(results.arms) == [item.label for item in asked.named_methods]
    assert {len(arm.seeds) for arm in results.arms.values()} == {asked.verify.seeds}
    assert results.provenance["command"] in README


def test_every_comparison_is_quoted_as_it_was_found(results):
    for found in results.comparisons:
        row = next(line for line in README.splitlines() if line.startswith(f"| {found.tuned} − {found.baseline} |"))
        assert f"| {found.verdict.outcome} |" in row
        for judged in found.summaries.values():
            assert f"{judged.value:+.3f} ({judged.low:+.3f} to {judged.high:+.3f})" in row
        tally = found.tally
        assert f"| {tally.num_better} / {tally.num_no_difference} / {tally.num_worse} |" in row


def test_every_domain_is_quoted_as_it_was_found(results):
    for name, domain in results.domains.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| {name} |"))
        assert f"| {domain.prior:.4f} | {results.arms['doremi'].weights[name]:.4f} |" in row
        assert all(f"| {arm.mean_nats(name):.3f} " in row for arm in results.arms.values())


def test_the_sentences_quote_the_headline(results):
    headline = results.comparisons[0]
    minus = {name: f"{judged.value:.3f}".replace("-", "−") for name, judged in headline.summaries.items()}
    assert f"{minus['uniform_mean']} nats per token in the uniform mean" in README
    assert f"better ({minus['reference_mean']}" in README
    assert f"a difference of {headline.verdict.minimal_detectable_effect:.3f} would have been found" in README


def test_the_speed_up_is_quoted_as_it_was_found(results):
    factor = next(found for found in results.comparisons if found.tuned == "uniform").speed_up.factor
    assert f"{factor.value:.2f} times\nas fast ({factor.low:.2f} to {factor.high:.2f})" in README


def test_the_report_follows_from_the_results(results):
    recipe_text = (FOLDER / "recipe.yaml").read_text(encoding="utf-8")
    expected = render_markdown(results, recipe=recipe_text, max_epochs=epoch_limit(recipe_text) or 4)
    assert (FOLDER / "report.md").read_text(encoding="utf-8") == expected
