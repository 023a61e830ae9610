"""`doremi weights`: what it prints."""

from __future__ import annotations

import math

import pytest

from doremi import DomainWeights
from doremi.cli import main
from doremi.cli_weights import kl_divergence


@pytest.fixture
def files(tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    DomainWeights({"web": 0.5, "code": 0.3, "books": 0.2}).to_json(first)
    DomainWeights({"web": 0.7, "code": 0.3}).to_json(second)
    return str(first), str(second)


def test_compare(capsys, files):
    assert main(["weights", "compare", *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[:4] for line in lines[1:4]) == [
        ["books", "0.2000", "0.0000", "-0.2000"],
        ["code", "0.3000", "0.3000", "+0.0000"],
        ["web", "0.5000", "0.7000", "+0.2000"],
    ]
    assert lines[3].startswith("code")
    assert lines[-1] == "total variation 0.2000, largest change 0.2000, KL(B ‖ A) 0.2355 nats"  # 0.7 ln(0.7 / 0.5)


def test_divergence_by_hand():
    assert kl_divergence({"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.75}) == pytest.approx(math.log(4 / 3) / 2)
    assert kl_divergence({"a": 1.0}, {"b": 1.0}) == math.inf
    assert kl_divergence({"a": 1.0, "b": 0.0}, {"a": 1.0}) == 0


def test_show_published_weights_with_their_origin(capsys):
    assert main(["weights", "show", "paper-280m"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["Pile-CC", "0.6056"]
    assert lines[-1] == "source: arXiv 2305.10429, Table 1"
    assert main(["weights", "show"]) == 0
    assert "redpajama-baseline           7 domains" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "paper-280M"], "'paper-280M' is neither a file nor published weights; there are pile-baseline-256k"),
        (["show", "missing.json"], "missing.json"),
        (["baseline", "unimax", "--corpus", "nowhere"], "give --tokens"),
        (["baseline", "uniform", "--corpus", "nowhere"], "nowhere"),
    ],
)
def test_refused(capsys, arguments, message):
    assert main(["weights", *arguments]) == 2
    assert message in capsys.readouterr().err
