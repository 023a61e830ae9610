"""A benchmark has all its peers or fails, and what they are installed from can be installed."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks import loader, prepare

ROOT = Path(__file__).parents[2]
LISTS = ("benchmarks/peers-loader.txt", "benchmarks/peers-prepare.txt", "tests/exporters/stacks.txt")


def requirements(path):
    lines = (line.partition("#")[0].strip() for line in (ROOT / path).read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def pins():
    """The tested version of each package, by the name that pip compares."""
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in requirements("constraints.txt")}


@pytest.mark.parametrize("path", LISTS)
def test_no_list_of_peers_asks_for_another_version_than_the_constraints_allow(path):
    """`make bench` installs both at once: pip refuses two versions of one package."""
    asked = {canonicalize_name(r.name): r for r in requirements(path)}
    assert {name for name, r in asked.items() if name in pins() and not r.specifier.contains(pins()[name])} == set()


def test_no_two_lists_of_peers_ask_for_different_versions():
    seen = {}
    for path in LISTS:
        for requirement in requirements(path):
            assert seen.setdefault(canonicalize_name(requirement.name), requirement.specifier) == requirement.specifier


def test_the_tested_versions_are_within_what_the_package_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [Requirement(text) for text in [*project["dependencies"], *(text for extra in extras for text in extra)]]
    outside = {
        requirement.name
        for requirement in asked
        if requirement.name != project["name"]
        and not requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])
    }
    assert outside == set()


def test_the_loader_is_not_compared_with_fewer_peers_than_there_are(monkeypatch, capsys):
    def run(name, *arguments):
        if name in ("grain", "mosaicml-streaming"):
            raise subprocess.CalledProcessError(1, name, stderr="Traceback\nModuleNotFoundError: No module named 'x'\n")

    monkeypatch.setattr(loader, "run", run)
    with pytest.raises(SystemExit, match="no comparison without grain;"):
        loader.prepared(None, Path("python"))
    assert "grain does not run here (unexpected): ModuleNotFoundError" in capsys.readouterr().err


def test_a_peer_that_cannot_be_had_is_named_with_the_reason(monkeypatch, capsys):
    def run(name, *arguments):
        if name == "mosaicml-streaming":
            raise FileNotFoundError("no such python")

    monkeypatch.setattr(loader, "run", run)
    assert loader.prepared(None, Path("python")) == [
        name for name in loader.CONTESTANTS if name != "mosaicml-streaming"
    ]
    assert "does not fit the CPU build of torch): no such python" in capsys.readouterr().err


def test_preparing_is_not_compared_with_fewer_peers_than_there_are(monkeypatch):
    def run(*arguments):
        raise subprocess.CalledProcessError(1, "python", stderr="Traceback\nImportError: datatrove\n")

    monkeypatch.setattr(prepare, "run", run)
    with pytest.raises(SystemExit, match="datatrove does not run here: ImportError: datatrove;"):
        prepare.measure({"datatrove": ["datatrove"]}, "folder", "python")
