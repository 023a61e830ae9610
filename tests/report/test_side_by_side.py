import pytest

from doremi.cli import main
from doremi.errors import InputError, MissingFileError
from doremi.report import directories
from doremi.report.side_by_side import write_comparison

from .hostile import NAMES
from .page import parse_page
from .synthetic import RECIPE, answer, make_results, prior, summary, write_run
from .test_markdown import tables_of


def typeset(text):
    return text.replace("-", "\N{MINUS SIGN}").replace("x", "\N{MULTIPLICATION SIGN}")


@pytest.fixture(scope="module")
def contents():
    return {"alpha": make_results(12), "beta": make_results(12, num_seeds=1, seed=3)}


@pytest.fixture(scope="module")
def run_dirs(contents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    paths = [write_run(folder / label, content) for label, content in contents.items()]
    (paths[1] / "recipe.yaml").write_text(RECIPE.replace("steps: 1200", "steps: 700"))
    return paths


@pytest.fixture(scope="module")
def page(run_dirs):
    return parse_page(write_comparison(run_dirs).read_text())


def test_page_and_twin_lie_beside_the_first_directory(run_dirs, capsys):
    assert main.main(["report", *map(str, run_dirs)]) == 0
    expected = run_dirs[0].parent / "comparison.html"
    assert capsys.readouterr().out == f"{expected}\n"
    assert expected.read_text().endswith("</html>\n")
    assert expected.with_suffix(".md").read_text().startswith("# DoReMi: run directories side by side")
    assert not (run_dirs[0] / "report.html").exists()


def test_page_goes_where_it_is_asked_to(run_dirs, tmp_path, capsys):
    assert main.main(["report", *map(str, run_dirs), "--out", str(tmp_path / "new" / "both.html")]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["both.html", "both.md"]


def test_one_directory_gets_its_own_report(tmp_path, contents, capsys):
    run_dir = write_run(tmp_path / "run", contents["alpha"])
    assert main.main(["report", str(run_dir)]) == 0
    assert capsys.readouterr().out == f"{run_dir / 'report.html'}\n"
    assert main.main(["report", str(run_dir), "--out", str(tmp_path / "x.html")]) == 2
    assert "--out is for several run directories" in capsys.readouterr().err


def test_verdicts_equal_the_results(page, contents):
    assert page.table("verdicts")[1:] == [
        ["alpha", "Better", contents["alpha"]["verdict"]],
        ["beta", "Seed noise not measured", contents["beta"]["verdict"]],
    ]


def test_weights_equal_the_results(page, contents):
    rows = page.table("side-by-side")[2:]
    assert {row[0]: row[2:] for row in rows} == {
        name: [f"{weights[name]:.2%}" for content in contents.values() for weights in (prior(content), answer(content))]
        for name in contents["alpha"]["domains"]
    }


def test_largest_weights_come_first(page):
    largest = [max(float(cell.rstrip("%")) for cell in row[3::2]) for row in page.table("side-by-side")[2:]]
    assert largest == sorted(largest, reverse=True)


def test_differences_are_those_that_each_directory_has_evidence_for(page, contents):
    rows = [row for row in page.table("forest")[1:] if len(row) > 1]
    seeds = contents["alpha"]["comparisons"][0]["summaries"]
    documents = contents["beta"]["comparisons"][0]["documents"]["summaries"]
    expected = [found[key] for key in ("uniform_mean", "reference_mean", "worst") for found in (seeds, documents)]
    for row, judged in zip(rows, expected, strict=True):
        interval = "–" if judged["low"] is None else typeset(f"{judged['low']:+.3f} to {judged['high']:+.3f}")
        assert row[2:] == [typeset(f"{judged['value']:+.3f}"), interval, str(judged["outcome"])]
    assert "95 % intervals over seeds (alpha), documents (beta)." in " ".join(page.text.split())


def test_losses_and_costs_equal_the_results(page, contents):
    keys = ("uniform_mean", "reference_mean", "worst")
    for row, cost, (label, content) in zip(
        page.table("losses")[2:], page.table("costs")[1:], contents.items(), strict=True
    ):
        losses = [f"{summary(content, arm, key):.3f}" for key in keys for arm in ("natural", "doremi")]
        assert row == [label, "doremi", "natural", *losses]
        factor = content["comparisons"][0]["speed_up"]["factor"]["value"]
        assert cost[1].startswith("–" if factor is None else f"{factor:.2f}\N{MULTIPLICATION SIGN}")
        assert cost[2:6] == [
            "2.18\N{MULTIPLICATION SIGN}",
            "6.60T",
            "3.03T",
            str(len(content["arms"]["doremi"]["seeds"])),
        ]


def test_recipes_show_only_what_differs(page):
    assert page.table("recipes")[1:] == [["training.steps", "1200", "700"]]


def test_twin_holds_the_same_numbers(run_dirs, contents):
    tables = tables_of(write_comparison(run_dirs).with_suffix(".md").read_text())
    weights = {row[0]: row[1:] for row in tables["Weights side by side"][1:]}
    assert weights["stdlib"][1] == f"{answer(contents['alpha'])['stdlib']:.2%}"
    judged = contents["alpha"]["comparisons"][0]["summaries"]["uniform_mean"]
    assert tables["Each experiment's arm - its control"][1][2] == (
        f"{judged['value']:+.3f} ({judged['low']:+.3f} to {judged['high']:+.3f}) better"
    )
    assert tables["What differs in the recipes"][1] == ["training.steps", "1200", "700"]


def test_other_corpora_tokenizers_models_and_reference_weights_are_warned_of(tmp_path, contents):
    alike = [write_run(tmp_path / name, contents["alpha"]) for name in ("a", "b")]
    assert directories.warnings(directories.load_directories(alike)) == []
    other = make_results(12, seed=3)
    other["provenance"] |= {"corpus_digest": "x", "tokenizer_digest": "y"}
    other["arms"]["doremi"]["num_tokens"] += 1
    other["target"] = "worst"
    found = directories.load_directories([alike[0], write_run(tmp_path / "c", other)])
    warned = directories.warnings(found)
    begins = ("The corpora", "The tokenizers", "The models", "The reference weights", "The targets")
    for warning, begin in zip(warned, begins, strict=True):
        assert warning.startswith(f"{begin} differ")
    text = " ".join(parse_page(write_comparison([alike[0], tmp_path / "c"]).read_text()).text.split())
    assert all(f"Careful. {warning}" in text for warning in warned)


def test_an_unknown_digest_is_no_difference(tmp_path, contents):
    provenance = {k: v for k, v in contents["alpha"]["provenance"].items() if k != "corpus_digest"}
    paths = [write_run(tmp_path / "a", contents["alpha"])]
    paths.append(write_run(tmp_path / "b", contents["alpha"] | {"provenance": provenance}))
    assert directories.warnings(directories.load_directories(paths)) == []


def test_other_domains_are_refused(tmp_path, contents, capsys):
    paths = [write_run(tmp_path / "a", contents["alpha"]), write_run(tmp_path / "b", make_results(4))]
    with pytest.raises(
        InputError, match=r"a and b have other domains \(only in a: 'docstrings',.* and 3 more; only in b"
    ):
        write_comparison(paths)
    assert main.main(["report", *map(str, paths)]) == 2
    assert not (tmp_path / "comparison.html").exists()


def test_a_directory_named_twice_is_refused(run_dirs):
    with pytest.raises(InputError, match="named twice"):
        write_comparison([run_dirs[0], run_dirs[0] / "."])


def test_directories_of_one_name_are_told_apart_by_their_paths(tmp_path, contents):
    paths = [write_run(tmp_path / parent / "run", contents["alpha"]) for parent in "ab"]
    assert [found.label for found in directories.load_directories(paths)] == list(map(str, paths))


@pytest.mark.parametrize("out", ["report.txt", "folder.html"])
def test_out_must_be_an_html_file(run_dirs, tmp_path, out):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InputError, match=r"must name an HTML file, such as comparison\.html"):
        write_comparison(run_dirs, out=tmp_path / out)


def test_a_missing_directory(run_dirs):
    with pytest.raises(MissingFileError, match="nowhere: no such run directory"):
        write_comparison([run_dirs[0], run_dirs[0].parent / "nowhere"])


def test_directories_without_comparisons(tmp_path, contents):
    older = {k: v for k, v in contents["alpha"].items() if k not in ("comparisons", "searches")}
    paths = [write_run(tmp_path / name, older) for name in "ab"]
    page = parse_page(write_comparison(paths).read_text())
    assert page.table("verdicts")[1][1] == "–"
    assert [row[4] for row in page.table("forest")[1:] if len(row) > 1] == ["not compared"] * 6


def test_hostile_names_and_paths_show_as_text_and_nothing_may_run(tmp_path):
    results = make_results(names=list(NAMES))
    results["verdict"] = "</td><script>alert(8)</script>"
    paths = [write_run(tmp_path / name, results) for name in ("<img src=x onerror=alert(9)>", "b|`c`")]
    (paths[1] / "recipe.yaml").write_text("a|b: <script>alert(10)</script>\n")
    out = write_comparison(paths)
    page = parse_page(out.read_text(encoding="utf-8"))
    assert {" ".join(shown.split()) for shown in NAMES.values()} <= {row[0] for row in page.table("side-by-side")}
    assert page.table("verdicts")[1] == ["<img src=x onerror=alert(9)>", "Better", results["verdict"]]
    assert ["a|b", "–", "<script>alert(10)</script>"] in page.table("recipes")
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not {name for _, attrs in page.tags for name in attrs if name.startswith("on")}
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy
    tables = tables_of(out.with_suffix(".md").read_text(encoding="utf-8"))
    assert [row[0] for row in tables["DoReMi: run directories side by side"][1:]] == [path.name for path in paths]
