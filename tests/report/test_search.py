"""The report of a search that is not verified: numbers by hand, page and twin, and damaged files."""

import copy
import json
import re

import pytest

from doremi.errors import InputError, MissingFileError
from doremi.evidence import results_file
from doremi.evidence.answers import Answers
from doremi.report import numbers, render, sentences
from doremi.report.render import write_report

from .hostile import NAMES
from .page import parse_page
from .synthetic import make_results, write_run

NAMES_BY_HAND = ["web", "code", "junk"]
ALARM = {"name": "drift", "finding": "the average still moves by 0.0312", "remedy": "train the proxy longer"}
SEARCH = {
    "alarms": [ALARM],
    "costs": {
        "reference": {"train_seconds": 61.0, "num_parameters": 12_300, "num_tokens": 1_000_000, "flops": 1.5e12},
        "proxy": {"train_seconds": 122.0, "num_parameters": 12_300, "num_tokens": 2_000_000, "flops": 4e12},
    },
    "convergence": {
        "max_change": 0.25,
        "effective_num_domains": 2.5,
        "status": "converged",
        "changes": [0.25, 0.0004],
        "spread": {"web": 0.005, "code": 0.0125, "junk": 0.0},
    },
    "trajectory": {
        "steps": [1, 2, 3, 4],
        "dro_weights": {"web": [0.4, 0.2, 0.2, 0.4], "code": [0.5, 0.7, 0.7, 0.6], "junk": [0.1, 0.1, 0.1, 0.0]},
        "average_weights": {
            "web": [0.4, 0.3, 0.27, 0.3],
            "code": [0.5, 0.6, 0.63, 0.65],
            "junk": [0.1, 0.1, 0.1, 0.05],
        },
        "excess_losses": {"web": [0.3, 0.2, 0.1, 0.1], "code": [0.4, 0.4, 0.3, 0.2], "junk": [0.0, 0.0, None, 0.0]},
    },
    "floor": {"domains": ["junk"], "summaries": {}},
}
BY_HAND = {
    "format": 2,
    "domains": {
        "web": {"tokens": 5000, "prior": 0.5},
        "code": {"tokens": 4000, "prior": 0.4},
        "junk": {"tokens": 1000, "prior": 0.1},
    },
    "arms": {
        "uniform": {"method": "uniform", "weights": {"web": 0.25, "code": 0.5, "junk": 0.25}},
        "natural": {"method": "natural", "weights": {"web": 0.5, "code": 0.4, "junk": 0.1}},
        "doremi": {"method": "doremi", "weights": {"web": 0.3, "code": 0.65, "junk": 0.05}},
        "moving": {"method": "GroupDRO", "weights": None},
    },
    "control": "natural",
    "searches": {"doremi": SEARCH},
    "provenance": {"doremi": "0.1.0", "command": "doremi search mix.yaml"},
}  # fmt: skip


def write_search(run_dir, content):
    """A run directory of a search, with the files that `write_report` reads."""
    write_run(run_dir, make_results(2, num_seeds=1))
    (run_dir / "results.json").unlink()
    (run_dir / "search.json").write_text(json.dumps(content))
    return run_dir


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    found = write_search(tmp_path_factory.mktemp("search"), BY_HAND)
    write_report(found)
    return found


@pytest.fixture(scope="module")
def found(run_dir):
    return parse_page((run_dir / "report.html").read_text())


@pytest.fixture(scope="module")
def twin(run_dir):
    return (run_dir / "report.md").read_text()


def squeezed(page):
    return " ".join(page.text.split())


def table_of(twin, head):
    """The rows below the heads of a table of Markdown, as text."""
    lines = twin[twin.index(f"| {head} ") :].split("\n\n")[0].split("\n")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_first_sentence_claims_nothing(found, twin):
    said = "Not verified: no model was trained to test these weights, and no claim is made that any are better."
    assert squeezed(found).index(said) < 400
    assert twin.startswith(f"# DoReMi report of a search\n\n{said}\n")
    for text in (squeezed(found), twin):
        assert "weights for 3 domains by uniform, natural, doremi, moving; weights.json holds those of doremi" in (
            text.replace("Weights for", "weights for")
        )
        assert "doremi run RECIPE, with the same recipe and --out" in text
        assert not re.search("verdict|speed-up|95 %", text.split("Reproduce")[0], re.IGNORECASE)


def test_the_weights_of_every_method_by_domain(found, twin):
    assert [row[0] for row in found.table("dumbbells")[1:]] == ["code", "web", "junk"]  # 0.25, 0.2, 0.05
    assert found.table("dumbbells")[1][2:] == ["40.00%", "65.00%", "1.62×"]
    heads, *rows = found.table("weights")
    assert heads == ["Domain", "tokens", "before", "natural", "uniform", "doremi", "moving"]
    assert rows == [
        ["code", "4.00K", "40.00%", "40.00%", "50.00%", "65.00%± 1.25%", "–"],
        ["web", "5.00K", "50.00%", "50.00%", "25.00%", "30.00%± 0.50%", "–"],
        ["junk", "1.00K", "10.00%", "10.00%", "25.00%", "5.00%± 0.00%", "–"],
    ]
    assert "| domain | tokens | before | natural | uniform | doremi | moving |" in twin
    section = twin[twin.index("## The answer of every method") :]
    assert [
        [cell.replace(" +/- ", "± ").replace("-", "–") for cell in row] for row in table_of(section, "domain")
    ] == rows


def test_how_the_weights_were_found(found, twin):
    """The drift: α over the last quarter is that of step 4; |0.1| + |0.05| + |0.05| over 2."""
    text = squeezed(found)
    assert found.table("rounds")[1:] == [["1", "25.00%"], ["2", "0.04%"]]
    assert "Convergence by round: converged" in text
    assert "Drift of ᾱ in the last quarter10.00%" in text
    assert "Spread over seeds1.25%" in text
    assert "Effective number of domains2.5 of 3" in text
    assert "At the floor, below a tenth of the reference weight: junk." in text
    assert table_of(twin, "round") == [["1", "25.00%"], ["2", "0.04%"]]
    assert "**Rounds.** converged" in twin
    facts = dict(table_of(twin, "check"))
    assert facts["drift in the last quarter"] == "10.00%"
    assert facts["spread over the proxies' seeds"] == "1.25%"
    data = json.loads(found.scripts[0])
    assert (data["losses"], data["tasks"]) == (None, None)
    assert data["trajectory"]["names"] == ["code", "web", "junk"]
    assert data["trajectory"]["series"]["average_weights"][0] == [0.5, 0.6, 0.63, 0.65]


def test_what_it_cost(found, twin):
    rows = [["reference", "12.3K", "1.00M", "1.50T", "1 min 01 s"], ["proxy", "12.3K", "2.00M", "4.00T", "2 min 02 s"]]
    assert found.table("costs")[1:] == rows
    assert table_of(twin, "stage") == rows
    said = "inding the weights took 5.50T FLOPs and 3 min 03 s of training"
    assert said in squeezed(found)
    assert said in twin


def test_flops_that_are_not_known_make_no_sum():
    content = copy.deepcopy(BY_HAND)
    content["searches"]["doremi"]["costs"]["proxy"]["flops"] = None
    assert "FLOPs that are not known and 3 min 03 s" in sentences.search_cost(Answers.model_validate(content))


@pytest.mark.parametrize("alarms", [[ALARM], []])
def test_alarms_come_first_where_there_are_any(tmp_path, alarms):
    content = copy.deepcopy(BY_HAND)
    content["searches"]["doremi"]["alarms"] = alarms
    run_dir = write_search(tmp_path, content)
    page = parse_page(write_report(run_dir).read_text())
    twin = (run_dir / "report.md").read_text()
    for text in (squeezed(page), twin):
        trust, weights = text.index("How far the weights can be trusted"), text.index("Weights before and after")
        assert (trust < weights) == bool(alarms)
    rows = [[ALARM["name"], ALARM["finding"], ALARM["remedy"]]] if alarms else []
    assert [row for table in page.tables_of("alarms") for row in table[1:]] == rows
    assert ("No check raised an alarm." in twin) != bool(alarms)


def test_every_other_search_has_its_figures(tmp_path):
    """The α of the last step of ``<slow>`` is its ᾱ."""
    content = copy.deepcopy(BY_HAND)
    slow = {"web": 0.4, "code": 0.4, "junk": 0.2}
    series = {name: [weight] for name, weight in slow.items()}
    content["arms"]["<slow>"] = {"method": "doremi", "weights": slow}
    content["searches"]["<slow>"] = {
        "convergence": {"max_change": 0.1, "status": "oscillating", "changes": [0.1, 0.05], "spread": {"web": 0.02}},
        "trajectory": {"steps": [4], "dro_weights": series, "average_weights": series, "excess_losses": series},
        "costs": {"proxy": SEARCH["costs"]["proxy"]},
    }
    run_dir = write_search(tmp_path, content)
    page, twin = parse_page(write_report(run_dir).read_text()), (run_dir / "report.md").read_text()
    expected = {
        "largest change of a weight": "10.00%",
        "domains left out": "0",
        "drift in the last quarter": "0.00%",
        "spread over the proxies' seeds": "2.00%",
        "largest change in each round": "10.00%, 5.00%: oscillating",
    }
    section = twin[twin.index("## How far the weights of &lt;slow&gt; can be trusted") :]
    assert dict(table_of(section, "check")) == expected
    shown = squeezed(page).split("How far the weights of <slow> can be trusted")[1]
    assert shown.index("Largest change in each round10.00%, 5.00%: oscillating") < shown.index("9.50T")
    assert [row[0] for row in page.table("costs")[1:]] == ["doremi: reference", "doremi: proxy", "<slow>: proxy"]
    assert page.table("alarms")[1][1] == f"doremi: {ALARM['finding']}"


def test_rules_alone_need_no_search(tmp_path):
    content = {**BY_HAND, "searches": {}}
    run_dir = write_search(tmp_path, content)
    text = squeezed(parse_page(write_report(run_dir).read_text()))
    assert "weights.json holds those of natural" in text
    assert "No model was trained: all answers follow from rules." in text
    assert "no model was trained: all answers follow from rules" in (run_dir / "report.md").read_text()


def test_results_take_the_place_of_the_search(tmp_path):
    results = make_results(3)
    run_dir = write_search(tmp_path, BY_HAND)
    write_run(run_dir, results)
    text = parse_page(write_report(run_dir).read_text()).text
    assert results["verdict"] in text
    assert "Not verified" not in text


def test_hostile_text_shows_and_runs_nothing(tmp_path):
    names = list(NAMES)
    share = 1 / len(names)
    content = copy.deepcopy(BY_HAND)
    content["domains"] = {name: {"tokens": 10, "prior": share} for name in names}
    content["arms"] = {"</title><script>alert(1)</script>": {"method": "x", "weights": dict.fromkeys(names, share)}}
    content["control"] = label = next(iter(content["arms"]))
    evil = {"name": "<b>", "finding": "<img src=x onerror=alert(2)>", "remedy": "</td><script>alert(3)"}
    costs = {"<svg onload=alert(4)>": SEARCH["costs"]["proxy"]}
    series = {name: [share] for name in names}
    trajectory = {"steps": [1], "dro_weights": series, "average_weights": series, "excess_losses": series}
    convergence = {"status": "</h3><script>alert(5)", "changes": [0.1]}
    content["searches"] = {
        label: {"alarms": [evil], "costs": costs, "trajectory": trajectory, "convergence": convergence,
                "floor": {"domains": names[:1], "summaries": {}}}
    }  # fmt: skip
    content["provenance"] = {"<u>key</u>": "</pre><script>alert(6)</script>", "command": "'\"><img src=x>"}
    report = write_report(write_search(tmp_path, content))
    page = parse_page(report.read_text(encoding="utf-8"))
    assert {tag for tag, _ in page.tags} <= {*SEEN_TAGS}
    assert not {name for _, attrs in page.tags for name in attrs if name.startswith("on")}
    assert len(page.scripts) == 3
    assert not set("<>&") & set(page.scripts[0])
    shown = [" ".join(text.split()) for text in NAMES.values()]
    assert (
        set(shown) == {row[0] for row in page.table("weights")[1:]} == {row[0] for row in page.table("dumbbells")[1:]}
    )
    for text in (evil["finding"], evil["remedy"], *costs, convergence["status"], "<u>key</u>"):
        assert text in page.text
    markdown = report.with_suffix(".md").read_text(encoding="utf-8")
    outside_code = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    assert not set("<>") & set(outside_code)
    assert "\x1b" not in markdown


SEEN_TAGS = (  # noqa: SIM905
    "html head meta title style body main header p h1 h2 h3 nav a b bdi small section div table thead tbody tr th td i "
    "span dl dt dd fieldset legend label input button figure figcaption pre code footer script"
).split()


# Bad input

ALIKE = {"code", "junk", "natural", "moving", "proxy"}
WRONG = ["without", None, "x", -1, 1e308, [], {"x": None}]


def places(value, path=()):
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        if key not in ALIKE and not (isinstance(key, int) and key):  # the first stands for the others
            yield from places(child, (*path, key))


def damaged(path, wrong):
    if not path:
        return wrong
    content = copy.deepcopy(BY_HAND)
    place = content
    for key in path[:-1]:
        place = place[key]
    if wrong == "without":
        del place[path[-1]]
    else:
        place[path[-1]] = wrong
    return content


def test_a_damaged_file_is_one_line_or_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "get_plotlyjs", lambda: "")
    run_dir = write_search(tmp_path, BY_HAND)
    refusals = []
    for path in places(BY_HAND):
        for wrong in WRONG:
            (run_dir / "search.json").write_text(json.dumps(damaged(path, wrong)))
            try:
                found = results_file.load_latest(run_dir)
                render.render_search_page(found, recipe="", weights="")
                render.render_search(found, recipe="")
            except InputError as error:
                refusals.append(str(error))
    assert len(refusals) > 200
    assert all(str(run_dir / "search.json") in text and "\n" not in text for text in refusals)
    assert all("`doremi search RECIPE`" in text for text in refusals)


@pytest.mark.parametrize("text", ["", "{", '{"format": 2', "[]", '{"format": NaN}'])
def test_an_interrupted_file_is_refused(tmp_path, text):
    run_dir = write_search(tmp_path, BY_HAND)
    (run_dir / "search.json").write_text(text)
    with pytest.raises(InputError, match=r"search\.json"):
        write_report(run_dir)
    assert not (run_dir / "report.html").exists()


def test_neither_results_nor_a_search(tmp_path):
    run_dir = write_search(tmp_path, BY_HAND)
    (run_dir / "search.json").unlink()
    with pytest.raises(MissingFileError, match=r"results\.json: no such file; `doremi evaluate RECIPE`"):
        results_file.load_latest(run_dir)


def test_a_weight_with_its_spread():
    assert numbers.with_spread(0.125, 0.0125) == "12.50% +/- 1.25%"
    assert numbers.with_spread(0.125, None) == "12.50%"
