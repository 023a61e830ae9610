"""What every verb does where the machine refuses: one line and an exit code, and no traceback for what is no bug."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from doremi.cli.main import main
from doremi.weights import DomainWeights


@pytest.fixture
def weights(tmp_path):
    DomainWeights({"web": 0.5, "code": 0.5}).to_json(tmp_path / "weights.json")
    return tmp_path / "weights.json"


def test_a_file_that_may_not_be_read(weights, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(weights))

    monkeypatch.setattr(type(weights), "read_text", refuse)
    assert main(["weights", "show", str(weights)]) == 2
    assert capsys.readouterr().err == f"doremi: {weights}: permission denied\n"


def test_a_file_where_the_run_directory_should_be(weights, capsys):
    recipe = weights.with_name("my.yaml")
    assert main(["recipe", "custom"]) == 0
    recipe.write_text(capsys.readouterr().out)
    assert main(["run", str(recipe), "--slurm", "1", "--out", str(weights)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"doremi: {weights}")
    assert "cannot be written: " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("num_domains", [2, 2000])  # what is written at the end, and more than a pipe holds
def test_a_reader_that_has_gone(tmp_path, num_domains):
    """``doremi weights show FILE | head -0``."""
    DomainWeights({f"{'n' * 90}{number}": 1 for number in range(num_domains)}).to_json(tmp_path / "many.json")
    command = [sys.executable, "-m", "doremi", "weights", "show", str(tmp_path / "many.json")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_broken_pipe_that_is_not_the_readers_is_a_bug(weights, monkeypatch):
    from doremi.cli import weights as cli_weights

    def fail(text):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(cli_weights, "_file", fail)
    with pytest.raises(BrokenPipeError):
        main(["weights", "show", str(weights)])
