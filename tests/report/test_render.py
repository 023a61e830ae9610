import re
import subprocess
import sys

import pytest

from doremi.errors import InputError, MissingFileError
from doremi.evidence.results_file import parse
from doremi.report import comparisons, numbers, views
from doremi.report.axes import LinearAxis
from doremi.report.render import write_report
from doremi.text import content_security_source

from .hostile import NAMES
from .page import parse_page
from .synthetic import ARMS, RECIPE, answer, make_results, make_tasks, nats, prior, summary, write_run

KEYS = ("uniform_mean", "reference_mean", "worst")
LOADING_ATTRIBUTES = ("src", "href", "srcset", "action", "poster", "data", "background", "xlink:href")


def text_of(run_dir):
    """All that its page shows, white space squeezed."""
    return " ".join(parse_page(write_report(run_dir).read_text()).text.split())


def typeset(text):
    return text.replace("-", "\N{MINUS SIGN}").replace("x", "\N{MULTIPLICATION SIGN}")


def test_report_is_written_whole_beside_the_results(tmp_path, results):
    run_dir = write_run(tmp_path / "run", results)
    (run_dir / "report.html").write_text("an older one")
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    assert path.read_text().endswith("</html>\n")
    written = sorted(p.name for p in run_dir.iterdir())
    assert written == ["recipe.yaml", "report.html", "report.md", "results.json", "weights.json"]


def test_the_same_run_gives_the_same_page(tmp_path, results):
    run_dir = write_run(tmp_path, results)
    assert write_report(run_dir).read_bytes() == write_report(run_dir).read_bytes()


def test_verdict_and_every_domain_are_on_the_page(page, results):
    assert results["verdict"] in page.text
    for css_class in ("dumbbells", "domains", "epochs"):
        names = [row[0] for row in page.table(css_class) if row[0] in results["domains"]]
        assert sorted(names) == sorted(results["domains"])


def test_weights_before_and_after_equal_the_results(page, results):
    for name, _, before, after, factor in page.table("dumbbells")[1:]:
        first, last = prior(results)[name], answer(results)[name]
        assert before == numbers.percent(first)
        assert after == numbers.percent(last)
        assert factor == typeset(numbers.factor(last / first))


def test_dumbbells_stand_where_the_weights_are(page, results):
    linear = LinearAxis.covering(w for weights in (prior(results), answer(results)) for w in weights.values())
    styles = [attrs["style"] for tag, attrs in page.tags if tag == "tr" and "style" in attrs]
    for name, style in zip(views.domain_order(parse(results)), styles, strict=True):
        assert f"--before-linear: {linear.position(prior(results)[name]):.4f};" in style
        assert f"--after-linear: {linear.position(answer(results)[name]):.4f};" in style


def test_losses_of_every_domain_equal_the_results(page, results):
    rows = page.table("domains")[2:]
    assert len(rows) == 12
    for name, tokens, before, after, natural, doremi, difference, uniform in rows:
        losses = [nats(results, arm, name) for arm in ARMS]
        assert tokens == numbers.count(results["domains"][name]["tokens"])
        assert (before, after) == (numbers.percent(prior(results)[name]), numbers.percent(answer(results)[name]))
        assert [natural, doremi, uniform] == [f"{loss:.3f}" for loss in losses]
        assert difference == typeset(f"{losses[1] - losses[0]:+.3f}")


def test_bits_per_byte_have_a_table_of_their_own(page, results):
    tables = [t for t, (tag, attrs) in zip(page.tables, tables_of(page), strict=True) if attrs["class"] == "domains"]
    assert len(tables) == 2
    for row in tables[1][2:]:
        assert row[4].strip() == f"{results['arms']['natural']['bits_per_byte'][row[0]]:.3f}"


def tables_of(page):
    return [(tag, attrs) for tag, attrs in page.tags if tag == "table"]


def test_summaries_equal_the_results(page, results):
    rows = [row for row in page.table("summaries")[1:] if len(row) == 5]
    floor = results["searches"]["doremi"]["floor"]["summaries"]
    expected = [[summary(results, arm, key) for arm in ARMS] for key in KEYS]
    expected += [[floor[arm][key] for arm in ARMS] for key in KEYS]
    judged = [results["comparisons"][0]["summaries"][key] for key in KEYS]
    intervals = [numbers.interval((found["low"], found["high"])) for found in judged] + [""] * 3
    for (_, natural, doremi, difference, uniform), values, interval in zip(rows, expected, intervals, strict=True):
        assert [natural, doremi, uniform] == [f"{value:.3f}" for value in values]
        assert difference == typeset(f"{values[1] - values[0]:+.3f}{interval}")
    assert "highest loss: base64-binaries" in rows[2][0]


def test_worst_domains_that_differ_are_named_by_arm(tmp_path):
    results = make_results(12)
    for arm, name in zip(ARMS, ("stdlib", "docstrings", None), strict=True):
        results["arms"][arm]["worst_domain"] = name
    run_dir = write_run(tmp_path, results)
    cell = parse_page(write_report(run_dir).read_text()).table("summaries")[4][0]
    assert cell.endswith("stdlib (natural)docstrings (doremi)- (uniform)")


def test_exact_numbers_are_behind_the_rounded_ones(page, results):
    titles = {attrs["title"] for tag, attrs in page.tags if tag == "td" and "title" in attrs}
    for name, domain in results["domains"].items():
        assert {str(nats(results, arm, name)) for arm in ARMS} <= titles
        assert {str(domain["tokens"]), str(answer(results)[name])} <= titles


def test_lowest_loss_of_a_row_is_marked(page, results):
    best = [attrs["title"] for tag, attrs in page.tags if tag == "td" and attrs.get("class") == "number best"]
    floor = results["searches"]["doremi"]["floor"]["summaries"]
    summaries = [min(summary(results, arm, key) for arm in ARMS) for key in KEYS]
    summaries += [min(floor[arm][key] for arm in ARMS) for key in KEYS]
    names = views.domain_order(parse(results))
    losses = [min(nats(results, arm, name) for arm in ARMS) for name in names]
    losses += [min(results["arms"][arm]["bits_per_byte"][name] for arm in ARMS) for name in names]
    assert best == [str(value) for value in summaries + losses]


def test_first_screen_says_outcome_speed_up_and_cost(page, results):
    text = " ".join(page.text.split())
    found, factor = results["comparisons"][0], results["comparisons"][0]["speed_up"]["factor"]
    assert found["verdict"]["outcome"] == "better"
    assert text.index("DoReMi report Better Better: doremi minus natural") < text.index("Weights before and after")
    step = found["speed_up"]["steps_to_match"]["value"]
    interval = f"95 % interval {factor['low']:.2f}x to {factor['high']:.2f}x"
    assert f"final uniform mean of natural at step {step:,.0f} of 1,200, {interval}" in text
    assert f"Speed-up {factor['value']:.2f}\N{MULTIPLICATION SIGN}" in text
    ratio = results["searches"]["doremi"]["cost"]["search_over_main"]
    assert ratio == pytest.approx((2.5e12 + 4.1e12) / (6 * 205_632 * 1200 * 16 * 128))
    assert f"Cost {ratio:.2f}\N{MULTIPLICATION SIGN} finding the weights (reference and proxy) took" in text
    seconds = sum(cost["train_seconds"] for cost in results["searches"]["doremi"]["costs"].values())
    seconds += sum(sum(arm["train_seconds"]) for arm in results["arms"].values())
    assert f"Recommended. {results['recommendation']['reason']}" in text
    assert f"training of everything took {numbers.duration(seconds)}" in text


def test_seeds_that_never_catch_up_are_counted(tmp_path):
    results = make_results(3)
    nothing = {"value": None, "low": None, "high": None, "p_value": None, "method": "none: 1 of 3 seeds reach it"}
    results["comparisons"][0]["speed_up"] |= {"num_reached": 1, "factor": nothing, "steps_to_match": nothing}
    text = text_of(write_run(tmp_path, results))
    assert "Speed-up 1 of 3 seeds doremi reached the final uniform mean of natural in 1 of 3 seeds" in text


def test_without_three_seeds_neither_better_nor_worse_is_said(tmp_path):
    results = make_results(12, num_seeds=2)
    text = text_of(write_run(tmp_path, results))
    assert "DoReMi report Seed noise not measured Seed noise not measured (2 of the 3 seeds" in text
    assert "over documents alone, so that another seed may differ" in text
    assert "They say nothing about training again with another seed" in text


def alone(results):
    """Where nothing was compared."""
    return results | {"comparisons": [], "recommendation": None, "verdict": "Nothing was compared."}


def test_a_file_without_comparisons_still_gets_its_page(tmp_path, results):
    page = parse_page(write_report(write_run(tmp_path, alone(results))).read_text())
    text = " ".join(page.text.split())
    assert "DoReMi report Nothing was compared." in text
    assert "Speed-up" not in text
    assert f"Uniform mean {summary(results, 'natural', 'uniform_mean'):.3f} nats natural; nothing was compared" in text
    assert "This file holds no comparisons" in text
    assert [len(row) for row in page.table("domains")[2:]] == [4 + len(ARMS)] * 12
    assert page.tables_of("forest") == page.tables_of("pairs") == []


def test_the_time_of_a_search_of_unknown_cost_is_counted(tmp_path, results):
    proxy = {"train_seconds": 100.0, "num_parameters": 10, "num_tokens": 1000, "flops": None}
    text = text_of(write_run(tmp_path, results | {"searches": {"doremi": {"costs": {"proxy": proxy}}}}))
    assert "training of everything: proxy and 3 arms" in text


def test_an_arm_that_never_catches_up_is_said_to(tmp_path):
    results = make_results(3, num_seeds=1)
    nothing = {"value": None, "low": None, "high": None, "p_value": None, "method": "none: 0 of 1 seeds reach it"}
    results["comparisons"][0]["speed_up"] |= {"num_reached": 0, "factor": nothing, "steps_to_match": nothing}
    text = text_of(write_run(tmp_path, results))
    assert "Speed-up not reached doremi did not reach the final uniform mean of natural in 1,200 steps" in text


def test_an_arm_that_shares_its_models_says_so(tmp_path):
    results = make_results(3)
    results["arms"]["unimax"] = results["arms"]["uniform"] | {"same_as": "uniform"}
    page = parse_page(write_report(write_run(tmp_path, results)).read_text())
    assert [row[-1] for row in page.table("runs")[1:]][-2:] == ["runs/uniform/seed-0", "same as uniform"]


def test_text_that_is_not_trained_on_has_rows_of_its_own(tmp_path, results):
    more = {"answers": {"tokens": 10, "trained_on": False}}
    arms = {a: arm | {"nats": arm["nats"] | {"answers": [5.0, 6.0, 7.0]}} for a, arm in results["arms"].items()}
    page = parse_page(
        write_report(write_run(tmp_path, results | {"sets": results["sets"] | more, "arms": arms})).read_text()
    )
    rows = page.table("domains")
    assert rows[-2:] == [["Text that is not trained on"], ["answers", "", "", "", "6.000", "6.000", "0.000", "6.000"]]
    assert "12 domains and on 1 sets that are not trained on" in " ".join(page.text.split())


# Differences


def test_forest_has_a_mark_and_an_interval_for_every_domain_of_every_pair(page, results):
    tables = page.tables_of("forest")
    assert len(tables) == len(results["comparisons"]) == 3
    for rows, found in zip(tables, results["comparisons"], strict=True):
        shown = {row[0]: row[2:] for row in rows[1:]}
        labels = {"uniform mean": "uniform_mean", "reference-weighted mean": "reference_mean", "worst domain": "worst"}
        expected = found["domains"] | {label: found["summaries"][key] for label, key in labels.items()}
        assert shown == {
            name: [
                typeset(f"{judged['value']:+.3f}"),
                typeset(f"{judged['low']:+.3f} to {judged['high']:+.3f}"),
                str(judged["outcome"]),
            ]
            for name, judged in expected.items()
        }
    marks = [attrs["style"] for tag, attrs in page.tags if tag == "i" and "dot" in (attrs.get("class") or "").split()]
    assert len(marks) == 3 * (12 + 3)


def test_marks_stand_where_the_differences_are(page, results):
    found = comparisons.forests(parse(results))[0]
    dots = [attrs for tag, attrs in page.tags if tag == "i" and (attrs.get("class") or "").startswith("dot")]
    lines = [attrs for tag, attrs in page.tags if tag == "i" and (attrs.get("class") or "").startswith("line")]
    for row, dot, line in zip((*found.summaries, *found.domains), dots, lines, strict=False):
        assert dot["style"] == f"--at: {found.axis.position(row.judged.value):.4f}"
        low, high = (found.axis.position(end) for end in row.judged.ends)
        assert line["style"] == f"--from: {low:.4f}; --to: {high:.4f}"


def test_a_difference_without_an_interval_is_hollow_and_says_why(tmp_path):
    results = make_results(12, num_seeds=1)  # the domain at index 7 has too few documents
    page = parse_page(write_report(write_run(tmp_path, results)).read_text())
    row = next(row for row in page.tables_of("forest")[0] if row[0] == "licences-and-readmes")
    assert row[3:] == ["–", "not measured"]
    assert "none: 12 of the 30 documents that an interval needs" in {attrs.get("title") for _, attrs in page.tags}
    assert [attrs.get("class") for tag, attrs in page.tags if tag == "i"].count("dot hollow") == 3 * 3


def test_an_interval_that_leaves_the_axis_ends_in_an_arrow(tmp_path):
    results = make_results(22)
    judged = results["comparisons"][0]["domains"]["stdlib"]
    judged |= {"low": judged["value"] - 9, "high": judged["value"] + 9}
    page = parse_page(write_report(write_run(tmp_path, results)).read_text())
    assert "line cut-low cut-high" in {attrs.get("class") for tag, attrs in page.tags if tag == "i"}


def test_every_pair_has_its_row(page, results):
    rows = page.table("pairs")[1:]
    for row, found in zip(rows, results["comparisons"], strict=True):
        judged = [found["summaries"][key] for key in ("uniform_mean", "reference_mean", "worst")]
        tally, factor = found["tally"], found["speed_up"]["factor"]
        assert row[:2] == [f"{found['tuned']} − {found['baseline']}", str(found["verdict"]["outcome"])]
        assert row[2:5] == [typeset(f"{j['value']:+.3f}{j['low']:+.3f} to {j['high']:+.3f}") for j in judged]
        assert row[5] == f"{tally['num_better']} / {tally['num_no_difference']} / {tally['num_worse']}"
        assert row[6] == f"{found['verdict']['minimal_detectable_effect']:.3f}"
        reached = f"{found['speed_up']['num_reached']} of 3 seeds"
        assert row[7].startswith(reached if factor["value"] is None else f"{factor['value']:.2f}")


def test_the_plain_arm_and_how_much_it_explains(tmp_path):
    results = make_results(22, arms=("natural", "doremi", "reference_without_floor"))
    page = parse_page(write_report(write_run(tmp_path, results)).read_text())
    explained = results["searches"]["doremi"]["explained"]["summaries"]
    share = explained["uniform_mean"]["share"]
    assert page.table("control")[1] == [
        "uniform mean",
        typeset(f"{share['value']:.2%}"),
        typeset(f"{share['low']:.2%} to {share['high']:.2%}"),
        share["method"],
    ]
    assert page.table("control")[3][1:] == ["–", "–", explained["worst"]["share"]["method"][len("none: ") :]]


def test_weights_of_every_arm(page, results):
    for name, *shown in page.table("weights")[1:]:
        assert shown == [numbers.percent(results["arms"][arm]["weights"][name]) for arm in ARMS]


# Trust


def test_alarms_of_a_kind_are_one_row(tmp_path):
    results = make_results(12)
    results["searches"]["doremi"]["alarms"] = [
        {"name": "starvation", "finding": f"{name!r} is starved", "remedy": "iterate"} for name in results["domains"]
    ]
    page = parse_page(write_report(write_run(tmp_path, results)).read_text())
    finding = "'stdlib' is starved; 'ml-libraries' is starved; 'cpp-headers' is starved; and 9 more"
    assert page.table("alarms")[1:] == [["starvation", finding, "iterate"]]


def test_rounds_and_facts(page, results):
    assert page.table("rounds")[1:] == [["1", "21.71%"], ["2", "3.12%"]]
    text = " ".join(page.text.split())
    assert "Convergence by round: stopped at the maximum" in text
    assert "No check raised an alarm." in text
    assert (
        f"Effective number of domains{results['searches']['doremi']['convergence']['effective_num_domains']:.1f} of 12"
        in text
    )
    assert "Domains left out0 every domain has a weight above 0" in text


def test_tasks_have_a_section_only_where_there_are_any(tmp_path, page, results):
    assert page.tables_of("tasks") == []
    content = results | {"tasks": make_tasks(ARMS)}
    content["tasks"]["tasks"]["lambada"]["num_truncated"] = 12
    found = parse_page(write_report(write_run(tmp_path, content)).read_text())
    rows = found.table("tasks")[1:]
    for row, (name, task) in zip(rows, content["tasks"]["tasks"].items(), strict=False):
        values = [f"{task['arms'][arm]['value']:.3f}" for arm in ARMS]
        cut = "; 12 prompts cut" if name == "lambada" else ""
        assert row == [name, f"acc{cut}", "400", "1", *values]
    assert rows[-1] == ["average", "", "–", "–", *(f"{content['tasks']['average'][arm]['value']:.3f}" for arm in ARMS)]
    row = next(row for row in found.table("task-differences") if row[0] == "lambada")
    judged = content["tasks"]["comparisons"][0]["tasks"]["lambada"]
    assert row[1] == typeset(f"{judged['value']:+.3f}{judged['low']:+.3f} to {judged['high']:+.3f}")


def test_tasks_of_one_seed_have_a_standard_error(tmp_path, results):
    content = results | {"tasks": make_tasks(ARMS, num_seeds=1)}
    cell = parse_page(write_report(write_run(tmp_path, content)).read_text()).table("tasks")[1][4]
    score = content["tasks"]["tasks"]["lambada"]["arms"]["natural"]
    assert cell == f"{score['value']:.3f}± {score['by_seed']['0']['standard_error']:.3f}"


def test_epochs_equal_the_results(page, results):
    for name, _, *epochs in page.table("epochs")[1:]:
        assert epochs == [numbers.epochs(results["arms"][arm]["epochs"][name]) for arm in ARMS]
    assert "doremi read no domain more than 4 times, the limit." in page.text


def test_the_limit_of_the_recipe_counts(tmp_path, results):
    run_dir = write_run(tmp_path, results)
    second, largest = sorted(results["arms"]["doremi"]["epochs"].values())[-2:]
    limit = (second + largest) / 2
    (run_dir / "recipe.yaml").write_text(f"training: {{max_epochs: {limit}}}")
    page = parse_page(write_report(run_dir).read_text())
    assert f"doremi read 1 of 12 domains more than {limit:g} times, the limit of the recipe." in " ".join(
        page.text.split()
    )
    epochs = [value for arm in ARMS for value in results["arms"][arm]["epochs"].values()]
    marked = [a["title"] for _, a in page.tags if a.get("class") == "number many"]
    assert sorted(marked) == sorted(str(value) for value in epochs if value > limit)


def test_repeated_domains_are_counted_and_marked(tmp_path):
    results = make_results(3)
    results["arms"]["doremi"]["epochs"]["stdlib"] = 4.5
    page = parse_page(write_report(write_run(tmp_path, results)).read_text())
    assert "doremi read 1 of 3 domains more than" in " ".join(page.text.split())
    assert [attrs["title"] for _, attrs in page.tags if attrs.get("class") == "number many"] == ["4.5"]


def test_runs_and_provenance(page, results):
    rows = page.table("runs")[1:]
    assert [row[:4] for row in rows] == [
        ["reference", "", "", ""],
        ["proxy", "", "", ""],
        ["natural", "natural", "0, 1, 2", "1,200"],
        ["doremi", "doremi", "0, 1, 2", "1,200"],
        ["uniform", "uniform", "0, 1, 2", "1,200"],
    ]
    assert [row[-1] for row in rows[2:]] == [f"runs/{arm}/seed-0" for arm in ARMS]
    assert rows[1][6] == numbers.count(results["searches"]["doremi"]["costs"]["proxy"]["flops"])
    assert "With the search, the final loss of natural cost" in page.text
    assert "the FLOPs of natural." in page.text  # and not "flops", which is another unit
    for value in results["provenance"].values():
        assert value in page.text


def test_recipe_and_weights_are_shown_as_they_are(page, results):
    assert RECIPE in page.text
    assert f'"stdlib": {answer(results)["stdlib"]}' in page.text


@pytest.mark.parametrize("part", ["curve", "trajectory", "convergence", "floor"])
def test_a_file_that_lacks_a_part_still_gets_a_page(tmp_path, part):
    results = make_results(12)
    for holder in (*results["arms"].values(), *results["searches"].values()):
        holder.pop(part, None)
    page = parse_page(write_report(write_run(tmp_path, results)).read_text())
    said = {
        "curve": "No losses were recorded during training.",
        "trajectory": "No trajectory was recorded.",
        "floor": "doremi leaves no domain at the floor",
        "convergence": "",
    }
    assert said[part] in page.text


def test_numbers_that_were_not_measured_show_as_a_dash(tmp_path):
    results = make_results(2)
    for arm in results["arms"].values():
        arm |= {"nats": {}, "bits_per_byte": {}, "weights": None, "epochs": {}, "train_seconds": [], "summaries": {}}
        arm["worst_domain"] = None
    page = parse_page(write_report(write_run(tmp_path, results)).read_text())
    assert page.table("domains")[2][3:] == ["–"] * 5
    assert page.table("epochs")[1][2:] == ["–"] * 3


def test_long_tables_scroll_inside_the_page(tmp_path, page):
    def tall(page):
        return sum("tall" in (attrs.get("class") or "").split() for tag, attrs in page.tags if tag == "div")

    many = parse_page(write_report(write_run(tmp_path, make_results(200))).read_text())
    assert (tall(page), tall(many)) == (1, 11)  # the chart of the losses; every table of domains, runs or summaries


# Untrusted text


def test_hostile_names_show_as_text(hostile_report):
    page = parse_page(hostile_report.read_text(encoding="utf-8"))
    for css_class in ("dumbbells", "domains", "epochs"):
        assert {" ".join(shown.split()) for shown in NAMES.values()} <= {row[0] for row in page.table(css_class)}
    for text in ("</title></h1><script>alert(4)", "<u>key</u>", "</pre><script>alert(5)", "<svg onload=alert(6)>"):
        assert text in page.text
    assert "a: </pre><script>alert(7)</script>\nb: \\u202e\n" in page.text


def test_hostile_names_add_no_element_attribute_or_script(hostile_report, page):
    hostile = parse_page(hostile_report.read_text(encoding="utf-8"))
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in page.tags} | {"br"}
    assert not {name for _, attrs in hostile.tags for name in attrs if name.startswith("on")}
    assert [tag for tag, _ in hostile.tags].count("script") == 3
    assert len(hostile.scripts) == 3
    assert "alert(" not in hostile.scripts[1] + hostile.scripts[2]
    assert not set("<>&") & set(hostile.scripts[0])


def test_only_the_two_scripts_of_the_page_may_run_and_nothing_may_load(page):
    policies = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    directives = dict(directive.strip().split(" ", 1) for directive in policies[0].split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"].split() == [content_security_source(script) for script in page.scripts[1:]]
    assert directives["img-src"] == "data: blob:"
    assert not set(directives) & {"connect-src", "font-src", "frame-src", "media-src", "object-src"}


def test_no_element_refers_to_anything_outside_the_page(page):
    for tag, attrs in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        for name in LOADING_ATTRIBUTES:
            assert attrs.get(name) is None or attrs[name].startswith("#"), (tag, attrs)
    assert not re.search(r"url\(|@import", "".join(page.styles))


def test_plotly_is_inlined_once(page):
    assert [script.startswith("/**\n* plotly.js v") for script in page.scripts] == [False, True, False]


def test_picker_offers_every_domain_and_ticks_the_largest_changes(page, results):
    boxes = [attrs for tag, attrs in page.tags if tag == "input" and attrs.get("type") == "checkbox"]
    assert [box["value"] for box in boxes] == [str(i) for i in range(12)]
    assert ["checked" in box for box in boxes] == [True] * 8 + [False] * 4
    labels = re.findall(r"\S+", page.text[page.text.index("Domains shown") :])
    order = [name for name in labels if name in results["domains"]][:12]
    assert order == views.domain_order(parse(results))


# Bad input


@pytest.mark.parametrize("name", ["results.json", "recipe.yaml", "weights.json"])
def test_missing_file(tmp_path, results, name):
    run_dir = write_run(tmp_path, results)
    (run_dir / name).unlink()
    with pytest.raises(MissingFileError, match=rf"{name}: no such file"):
        write_report(run_dir)
    assert not (run_dir / "report.html").exists()


def test_file_that_is_not_text(tmp_path, results):
    run_dir = write_run(tmp_path, results)
    (run_dir / "recipe.yaml").write_bytes(b"seed: \xff\n")
    with pytest.raises(InputError, match=r"recipe\.yaml: not UTF-8 text \(byte 6\)"):
        write_report(run_dir)


def test_malformed_results_leave_an_older_report_alone(tmp_path, results):
    run_dir = write_run(tmp_path, results)
    older = write_report(run_dir).read_bytes()
    (run_dir / "results.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match="Field required"):
        write_report(run_dir)
    assert (run_dir / "report.html").read_bytes() == older


def test_the_report_needs_no_torch_and_nothing_of_the_training_side():
    imports = "import sys, doremi.report.render, doremi.report.table; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "datasets"} & set(modules)
    ours = {name.split(".")[1] for name in modules if name.startswith("doremi.")}
    assert ours <= {"errors", "evidence", "files", "redaction", "report", "text", "weights"}
