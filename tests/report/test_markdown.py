"""The twin as a Markdown parser reads it: its tables hold the numbers of the results, and names are text."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from doremi.report import numbers
from doremi.report.markdown_blocks import code_block, table
from doremi.report.render import write_report
from doremi.text import markdown_text, visible

from .hostile import NAMES
from .synthetic import ARMS, RECIPE, answer, make_results, make_tasks, nats, prior, summary, write_run

PARSER = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"])
MARKUP = {"link_open", "image", "em_open", "strong_open", "code_inline", "html_inline", "html_block", "s_open"}


def text_of(token):
    return "".join(child.content for child in token.children)


def tables_of(document):
    """The rows of every table, by the heading above it; cells as a reader sees them."""
    found, heading, opened = {}, "", ""
    for token in PARSER.parse(document):
        if token.type.endswith("_open"):
            opened = token.type
            if opened == "table_open":
                found.setdefault(heading, [])
            elif opened == "tr_open":
                found[heading].append([])
        elif token.type == "inline" and opened == "heading_open":
            heading = text_of(token)
        elif token.type == "inline" and opened in ("th_open", "td_open"):
            found[heading][-1].append(text_of(token))
    return found


@pytest.fixture(scope="module")
def document(results, tmp_path_factory):
    return write_report(write_run(tmp_path_factory.mktemp("run"), results)).with_suffix(".md").read_text()


def test_verdict_and_recipe_are_there(document, results):
    assert document.startswith("# DoReMi report\n\n**Verdict.** Better: doremi minus natural is")
    assert RECIPE in document
    assert results["provenance"]["command"] in document


def test_weights_equal_the_results(document, results):
    rows = tables_of(document)["Weights before and after"][1:]
    assert {row[0]: row[2:4] for row in rows} == {
        name: [numbers.percent(weight), numbers.percent(answer(results)[name])]
        for name, weight in prior(results).items()
    }


def test_losses_equal_the_results(document, results):
    tables = tables_of(document)
    assert {row[0]: row[1:4] for row in tables["Every domain"][1:]} == {
        name: [f"{nats(results, arm, name):.3f}" for arm in ARMS] for name in results["domains"]
    }
    assert tables["Summaries"][1][:4] == [
        "uniform mean", *(f"{summary(results, arm, 'uniform_mean'):.3f}" for arm in ARMS)
    ]  # fmt: skip


def test_differences_of_every_pair_equal_the_results(document, results):
    tables = tables_of(document)
    for found in results["comparisons"]:
        rows = {row[0]: row[1:] for row in tables[f"{found['tuned']} - {found['baseline']}"][1:]}
        assert len(rows) == 3 + 12
        for name, judged in found["domains"].items():
            assert rows[name] == [
                str(judged["outcome"]), f"{judged['value']:+.3f}", f"{judged['low']:+.3f} to {judged['high']:+.3f}",
                numbers.p_value(judged["holm_p_value"]),
            ]  # fmt: skip


def test_pairs_equal_the_results(document, results):
    factor = results["comparisons"][0]["speed_up"]["factor"]
    row = tables_of(document)["All arms compared"][1]
    assert row[:3] == ["doremi - natural", "better", "seeds"]
    assert row[-1] == f"{factor['value']:.2f}x ({factor['low']:.2f}x to {factor['high']:.2f}x)"
    assert row[-2] == f"{results['comparisons'][0]['verdict']['minimal_detectable_effect']:.3f}"


def test_tasks_equal_the_results(tmp_path, results):
    content = results | {"tasks": make_tasks(ARMS)}
    tables = tables_of(write_report(write_run(tmp_path, content)).with_suffix(".md").read_text())
    scores = content["tasks"]["tasks"]["squad"]["arms"]
    assert tables["Few-shot tasks"][2] == ["squad", "acc", "400", "1", *(f"{scores[arm]['value']:.3f}" for arm in ARMS)]
    average = content["tasks"]["comparisons"][0]["average"]
    assert tables["Differences in the tasks"][-1][1] == (
        f"{average['value']:+.3f} ({average['low']:+.3f} to {average['high']:+.3f})"
    )


def test_a_difference_that_was_not_measured_says_why(tmp_path):
    run_dir = write_run(tmp_path, make_results(12, num_seeds=1))
    rows = tables_of(write_report(run_dir).with_suffix(".md").read_text())["doremi - natural"]
    assert next(row for row in rows if row[0] == "licences-and-readmes")[1] == (
        "not measured: 12 of the 30 documents that an interval needs"
    )


def test_hostile_names_are_text_in_cells_of_their_own(hostile_report):
    document = hostile_report.with_suffix(".md").read_text(encoding="utf-8")
    tables = tables_of(document)
    for heading in ("Weights before and after", "Every domain", "doremi - natural", "How often each domain was read"):
        names = [row[0] for row in tables[heading]]
        assert set(NAMES.values()) <= set(names)
        assert len({len(row) for row in tables[heading]}) == 1
    assert "</title></h1><script>alert(4)</script> " in text_of(PARSER.parse(document)[4])
    assert "Recommended. </p><script>alert(10)</script>" in text_of(PARSER.parse(document)[7])


def test_hostile_names_add_no_markup(hostile_report):
    tokens = PARSER.parse(hostile_report.with_suffix(".md").read_text(encoding="utf-8"))
    for token in tokens:
        found = {child.type for child in token.children or []} & MARKUP
        assert found <= {"strong_open"}, token.content  # our own labels
        assert token.type != "html_block"


@settings(derandomize=True, max_examples=300)
@given(st.text(alphabet=st.sampled_from("ab|\\`*_<>&[]()!~#$:/@. \n-+1") | st.characters(), min_size=1))
def test_any_name_comes_back_as_the_text_that_shows(name):
    tables = tables_of("# h\n\n" + table(["x", "y"], [[f"a{name}a", "1"]]))
    assert tables["h"][1] == [f"a{visible(name)}a", "1"]


def test_links_mathematics_and_emoji_are_not_made():
    shown = markdown_text("https://x.org www.x.org $a$ :smile: a@b")
    assert not re.search(r"(?<!\\)(://|\$|@|:s)|www\.", shown)


def test_a_fence_is_longer_than_any_in_the_text():
    block = code_block("a\n````\nb\n")
    assert block.splitlines()[0] == "`" * 5
    fence = next(token for token in PARSER.parse(block) if token.type == "fence")
    assert fence.content == "a\n````\nb\n"
