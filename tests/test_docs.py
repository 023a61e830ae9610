"""What the documentation shows exists: it builds without warnings, commands parse, recipes and keys are valid."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from doremi import DomainWeights
from doremi.cli import tables
from doremi.cli.main import build_parser
from doremi.experiment import recipe
from doremi.experiment.recipe import Recipe, describe_fields
from doremi.methods import alarms
from doremi.weights import published

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
OTHER_STACKS = "exporters.md"  # shows the configurations of other stacks


def blocks(language, *, without=()):
    found = [
        (page, block)
        for page, text in PAGES.items()
        if page not in without
        for block in re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    ]
    return [pytest.param(block, id=f"{page}-{index}") for index, (page, block) in enumerate(found)]


def in_backticks(pattern):
    return sorted({found for text in PAGES.values() for found in re.findall(rf"`({pattern})`", text)})


def command_lines():
    """Every line of the shell blocks that calls doremi, as a list of words; lines that end in a backslash go on."""
    lines = "\n".join(parameter.values[0] for parameter in blocks("sh")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.split(" > ")[0], comments=True) for line in lines]
    return [line[line.index("doremi") + 1 :] for line in words if "doremi" in line and line[0] != "pip"]


@pytest.mark.parametrize("command", command_lines(), ids=" ".join)
def test_every_command_line_parses(command):
    build_parser().parse_args(command)


def subcommands(parser):
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return actions[0].choices if actions else {}


@pytest.mark.parametrize("command", in_backticks(r"doremi [a-z][^`]*"))
def test_every_command_that_is_named_exists(command):
    parser = build_parser()
    for word in re.split(r"[ |]", command)[1:]:
        if subcommands(parser):
            parser = subcommands(parser)[word]
        elif word.startswith("--"):
            assert word in parser._option_string_actions


@pytest.mark.parametrize("block", blocks("yaml", without=[OTHER_STACKS]))
def test_every_recipe_is_valid(block):
    parts = yaml.safe_load(block)
    recipe.parse({"corpus": {"inputs": [{"path": "data"}]}} | parts)


SECTIONS = "|".join(set(Recipe.model_fields) - {"seed"})


@pytest.mark.parametrize("key", in_backticks(rf"(?:{SECTIONS})\.(?!json)[a-z_.\[\]*]+"))
def test_every_recipe_key_exists(key):
    known = [name.replace("[]", "") for name, _, _ in describe_fields()]
    plain = key.replace("[]", "").replace("models.*", "models.main").replace("overrides.main.", "")
    assert plain in known


@pytest.mark.parametrize("block", blocks("python", without=[OTHER_STACKS]))
def test_python_runs_and_prints_what_its_comments_say(block, capsys):
    exec(compile(block, "docs", "exec"), {})
    printed = capsys.readouterr().out
    for promised in re.findall(r"print\(.*#.*?(\[[^\]]*\])", block):
        assert promised in printed


def test_distances_between_published_weights():
    page = PAGES["hyper-parameters.md"]
    shown = re.findall(r"^doremi weights compare (\S+) (\S+) .*: (0\.\d\d)$", page, flags=re.MULTILINE)
    assert len(shown) == 3
    for first, second, distance in shown:
        weights = [published.load(name).weights for name in (first, second)]
        assert f"{alarms.total_variation(*weights):.2f}" == distance


@pytest.mark.parametrize(
    ("row", "weights"),
    [
        ("the paper's, 280M proxy", "paper-280m"),
        ("the paper's, 1B proxy", "paper-1b"),
        ("upstream's, 120M proxy", "upstream-120m"),
        ("our round 1", "round-01.json"),
        ("our round 2", "weights.json"),
    ],
)
def test_effective_numbers(row, weights):
    file = DOCS / "results" / "rounds" / weights
    values = DomainWeights.from_json(file) if file.exists() else published.load(weights).weights
    figures = [len(values), f"{max(values.values()):.2f}", f"{alarms.effective_number(values):.1f}"]
    assert f"| {row} | {' | '.join(map(str, figures))} |" in PAGES["hyper-parameters.md"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, in a folder of its own, so that nothing is written into the repository."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(DOCS, folder / "docs")
    for name in ("mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    (folder / "src").symlink_to(ROOT / "src")
    (folder / "build").mkdir()
    (folder / "build" / "recipe.txt").write_text(tables.recipe_help())
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stderr
    return folder / "build" / "site"


def nav_pages(entries):
    for entry in entries:
        for value in entry.values():
            yield from nav_pages(value) if isinstance(value, list) else [value]


def test_the_site_builds_without_warnings_and_has_every_page(site):
    listed = list(nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(listed) == sorted(PAGES)  # none missing, none twice
    for page in listed:
        assert (site / page.replace("README.md", "index.md")).with_suffix(".html").is_file()


def test_the_site_asks_nothing_of_the_network(site):
    for page in site.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]*', html), page


@pytest.mark.parametrize(
    ("page", "name", "text"),
    [
        ("weights", "doremi.weights.DomainWeights", "Weights by domain name, summing to 1"),
        ("corpus", "doremi.corpus.from_datasets", "Hugging Face"),
        ("mixture", "doremi.mixture.loader.MixtureLoader", "micro-batches"),
        ("methods", "doremi.methods.group_dro.update", "One step of the adversary"),
        ("training", "doremi.training.signals.ExcessLoss", "The gradient is of the unclipped loss"),
        ("evaluation", "doremi.evidence.verdict.compare_seeds", "Compare two weight vectors"),
        ("exporters", "doremi.exporters.export", "in the format of a stack"),
    ],
)
def test_docstrings_are_rendered(site, page, name, text):
    html = (site / "api" / f"{page}.html").read_text(encoding="utf-8")
    assert f'id="{name}"' in html
    assert text.lower() in html.lower()


def test_included_files_are_rendered(site):
    assert "doremi.max_main_epochs = null" in (site / "recipe.html").read_text(encoding="utf-8")
    assert "Keep a Changelog" in (site / "changelog.html").read_text(encoding="utf-8")
