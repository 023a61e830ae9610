"""What a user installs: the wheel, away from the tree, has everything that the commands need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import doremi
from tests.processes import ROOT, environment


class Installed(NamedTuple):
    python: Path
    packages: Path


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the wheel, built from the source distribution, and the dependencies of this one alone."""
    folder = tmp_path_factory.mktemp("release")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    packages = Path(output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder))
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(packages)
    # a path in a .pth file is searched for packages, not for .pth files: this tree's own is not found
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(python, packages)


def output(*command, cwd):
    kept = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=550, check=False, cwd=cwd, env=kept
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_commands_that_need_packaged_files(installed, tmp_path):
    def doremi_output(*arguments):
        return output(installed.python, "-m", "doremi", *arguments, cwd=tmp_path)

    where = output(installed.python, "-c", "import doremi; print(doremi.__file__)", cwd=tmp_path)
    assert Path(where) == installed.packages / "doremi" / "__init__.py"
    assert doremi_output("--version") == f"doremi {doremi.__version__}"
    assert "corpus:" in doremi_output("recipe", "custom")
    assert "paper-280m" in doremi_output("weights", "show")
    assert "doremi.corpus.demo.sample:documents" in doremi_output("demo", "--dry-run", "--out", "demo")


def test_every_file_of_the_package_is_in_the_wheel(installed):
    tracked = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in tracked if not (installed.packages / name).is_file()} == set()


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel(installed, tmp_path):
    output(installed.python, "-m", "doremi", "demo", "--out", "demo", "--set", "training.steps=40", cwd=tmp_path)
    assert (tmp_path / "demo" / "report.html").stat().st_size > 1_000_000
    assert (tmp_path / "demo" / "report.md").read_text(encoding="utf-8").startswith("# ")


def test_a_tag_is_the_version_and_the_changelog_knows_it():
    """Releasing: the version in doremi/__init__.py, a section of CHANGELOG.md, the tag."""
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.dev\d+)?", doremi.__version__)
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return  # a copy without history has no tags
    done = subprocess.run([git, "tag", "--points-at", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT,
                          env=os.environ)  # fmt: skip
    versions = [tag.removeprefix("v") for tag in done.stdout.split() if tag.startswith("v")]
    assert versions in ([], [doremi.__version__])
    for version in versions:
        assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
