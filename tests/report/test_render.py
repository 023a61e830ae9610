import re
import subprocess
import sys

import pytest

from doremi.errors import InputError, MissingFileError
from doremi.report import numbers, views
from doremi.report.axes import LinearAxis
from doremi.report.escaping import content_security_source
from doremi.report.render import write_report
from doremi.report.results import parse

from .hostile import NAMES
from .page import parse_page
from .synthetic import RECIPE, make_results, write_run

RUNS = ("baseline", "main", "uniform")
LOADING_ATTRIBUTES = ("src", "href", "srcset", "action", "poster", "data", "background", "xlink:href")


def typeset(text):
    return text.replace("-", "\N{MINUS SIGN}").replace("x", "\N{MULTIPLICATION SIGN}")


def test_report_is_written_whole_beside_the_results(tmp_path, results):
    run_dir = write_run(tmp_path / "run", results)
    (run_dir / "report.html").write_text("an older one")
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    assert path.read_text().endswith("</html>\n")
    assert sorted(p.name for p in run_dir.iterdir()) == ["recipe.yaml", "report.html", "results.json", "weights.json"]


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
        domain = results["domains"][name]
        assert before == numbers.percent(domain["reference_weight"])
        assert after == numbers.percent(domain["doremi_weight"])
        assert factor == typeset(numbers.factor(domain["doremi_weight"] / domain["reference_weight"]))


def test_dumbbells_stand_where_the_weights_are(page, results):
    linear = LinearAxis.covering(
        w for d in results["domains"].values() for w in (d["reference_weight"], d["doremi_weight"])
    )
    styles = [attrs["style"] for tag, attrs in page.tags if tag == "tr" and "style" in attrs]
    for name, style in zip(views.domain_order(parse(results)), styles, strict=True):
        domain = results["domains"][name]
        assert f"--before-linear: {linear.position(domain['reference_weight']):.4f};" in style
        assert f"--after-linear: {linear.position(domain['doremi_weight']):.4f};" in style


def test_losses_of_every_domain_equal_the_results(page, results):
    rows = page.table("domains")[2:]
    assert len(rows) == 12
    for name, tokens, reference, doremi, baseline, main, difference, uniform in rows:
        domain = results["domains"][name]
        assert tokens == numbers.count(domain["tokens"])
        assert (reference, doremi) == (
            numbers.percent(domain["reference_weight"]),
            numbers.percent(domain["doremi_weight"]),
        )
        assert [baseline, main, uniform] == [f"{domain['nats'][run]:.3f}" for run in RUNS]
        assert difference == typeset(f"{domain['nats']['main'] - domain['nats']['baseline']:+.3f}")


def test_bits_per_byte_have_a_table_of_their_own(page, results):
    tables = [t for t, (tag, attrs) in zip(page.tables, tables_of(page), strict=True) if attrs["class"] == "domains"]
    assert len(tables) == 2
    for row in tables[1][2:]:
        assert row[4].strip() == f"{results['domains'][row[0]]['bits_per_byte']['baseline']:.3f}"


def tables_of(page):
    return [(tag, attrs) for tag, attrs in page.tags if tag == "table"]


def test_summaries_equal_the_results(page, results):
    rows = [row for row in page.table("summaries")[1:] if len(row) == 5]
    keys = ("uniform_mean_nats", "reference_mean_nats", "worst_nats")
    expected = [summary[key] for summary in (results, results["without_floor"]) for key in keys]
    for (_, baseline, main, difference, uniform), values in zip(rows, expected, strict=True):
        assert [baseline, main, uniform] == [f"{values[run]:.3f}" for run in RUNS]
        assert difference == typeset(f"{values['main'] - values['baseline']:+.3f}")
    assert "highest loss: base64-binaries" in rows[2][0]


def test_worst_domains_that_differ_are_named_by_run(tmp_path, results):
    run_dir = write_run(
        tmp_path, results | {"worst_domain": dict(zip(RUNS, ("stdlib", "docstrings", None), strict=True))}
    )
    cell = parse_page(write_report(run_dir).read_text()).table("summaries")[4][0]
    assert cell.endswith("stdlib (baseline)docstrings (main)- (uniform)")


def test_exact_numbers_are_behind_the_rounded_ones(page, results):
    titles = {attrs["title"] for tag, attrs in page.tags if tag == "td" and "title" in attrs}
    for domain in results["domains"].values():
        assert {str(value) for value in domain["nats"].values()} <= titles
        assert {str(domain["tokens"]), str(domain["doremi_weight"])} <= titles


def test_lowest_loss_of_a_row_is_marked(page, results):
    best = [attrs["title"] for tag, attrs in page.tags if tag == "td" and attrs.get("class") == "number best"]
    keys = ("uniform_mean_nats", "reference_mean_nats", "worst_nats")
    summaries = [min(part[key].values()) for part in (results, results["without_floor"]) for key in keys]
    domains = [results["domains"][name] for name in views.domain_order(parse(results))]
    losses = [min(domain[unit].values()) for unit in ("nats", "bits_per_byte") for domain in domains]
    assert best == [str(value) for value in summaries + losses]


def test_speed_up_and_cost(page, results):
    text = " ".join(page.text.split())
    step = results["steps_to_match"]
    assert f"final reference-weighted mean at step {step:,.0f} of 1,200" in text
    assert f"{1200 / step:.2f}\N{MULTIPLICATION SIGN}" in text
    seconds = sum(run["train_seconds"] for run in results["runs"].values())
    assert (
        f"{numbers.duration(seconds)} training of the 3 runs compared; the search for the weights not included" in text
    )


def test_cost_of_the_search_where_it_is_known(tmp_path, results):
    proxy = {"train_seconds": 100.0, "num_parameters": 10, "num_tokens": 1000}
    text = parse_page(write_report(write_run(tmp_path, results | {"costs": {"proxy": proxy}})).read_text()).text
    assert "training of everything: proxy and 3 runs" in text


def test_main_that_never_catches_up_is_said_to(tmp_path, results):
    text = parse_page(write_report(write_run(tmp_path, results | {"steps_to_match": None})).read_text()).text
    assert "not reached" in text
    assert "main did not reach the baseline’s final reference-weighted mean in 1,200 steps" in text


def test_epochs_equal_the_results(page, results):
    for name, _, *epochs in page.table("epochs")[1:]:
        assert epochs == [numbers.epochs(results["runs"][run]["epochs"][name]) for run in RUNS]
    assert "Main read no domain more than 4 times" in page.text


def test_repeated_domains_are_counted_and_marked(tmp_path):
    results = make_results(3)
    results["runs"]["main"]["epochs"]["stdlib"] = 4.5
    page = parse_page(write_report(write_run(tmp_path, results)).read_text())
    assert "Main read 1 of 3 domains more than" in " ".join(page.text.split())
    assert [attrs["title"] for _, attrs in page.tags if attrs.get("class") == "number many"] == ["4.5"]


def test_runs_and_provenance(page, results):
    rows = page.table("runs")[1:]
    assert [row[:4] for row in rows] == [
        ["baseline", "natural", "1", "1,200"],
        ["main", "doremi", "1", "1,200"],
        ["uniform", "uniform", "1", "1,200"],
    ]
    assert [row[-1] for row in rows] == [results["runs"][run]["folder"] for run in RUNS]
    for value in results["provenance"].values():
        assert value in page.text


def test_recipe_and_weights_are_shown_as_they_are(page, results):
    assert RECIPE in page.text
    assert f'"stdlib": {results["domains"]["stdlib"]["doremi_weight"]}' in page.text


@pytest.mark.parametrize("part", ["curves", "trajectory", "convergence", "without_floor"])
def test_a_run_that_lacks_a_part_still_gets_a_page(tmp_path, results, part):
    page = parse_page(write_report(write_run(tmp_path, results | {part: {} if part == "curves" else None})).read_text())
    said = {
        "curves": "No losses were recorded during training.",
        "trajectory": "No trajectory was recorded.",
        "without_floor": "DoReMi sent no domain to the floor",
        "convergence": "",
    }
    assert said[part] in page.text


def test_numbers_that_were_not_measured_show_as_a_dash(tmp_path, results):
    results = make_results(2)
    for domain in results["domains"].values():
        domain |= {"nats": {}, "bits_per_byte": {}, "doremi_weight": None}
    for run in results["runs"].values():
        run |= {"epochs": {}, "train_seconds": None}
    for key in ("uniform_mean_nats", "reference_mean_nats", "worst_nats", "worst_domain"):
        results[key] = {}
    page = parse_page(write_report(write_run(tmp_path, results)).read_text())
    assert page.table("domains")[2][3:] == ["–"] * 5
    assert page.table("epochs")[1][2:] == ["–"] * 3


def test_long_tables_scroll_inside_the_page(tmp_path, page):
    def tall(page):
        return sum("tall" in (attrs.get("class") or "").split() for tag, attrs in page.tags if tag == "div")

    many = parse_page(write_report(write_run(tmp_path, make_results(200))).read_text())
    assert (tall(page), tall(many)) == (1, 7)  # the chart of the losses, and every table


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
    (run_dir / "results.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="Field required"):
        write_report(run_dir)
    assert (run_dir / "report.html").read_bytes() == older


def test_the_report_needs_no_torch_and_nothing_of_the_training_side():
    imports = "import sys, doremi.report.render, doremi.report.table; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "datasets"} & set(modules)
    ours = {name for name in modules if name.startswith("doremi.") and not name.startswith("doremi.report")}
    assert ours <= {"doremi.errors", "doremi.files", "doremi.weights"}
