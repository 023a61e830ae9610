"""docs/exporters.md: its table has every format and unit, and its Python runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doremi import DomainWeights
from doremi.exporters import FORMATS
from tests.exporters.conftest import WEIGHTS

PAGE = (Path(__file__).parents[2] / "docs" / "exporters.md").read_text(encoding="utf-8")


def test_the_table_has_every_format():
    assert re.findall(r"^\| `([a-z][a-z-]*)` \|", PAGE, re.MULTILINE) == list(FORMATS)


@pytest.mark.parametrize("format_id", [name for name, form in FORMATS.items() if len(form.units) > 1])
def test_the_table_says_which_units_can_be_asked_for(format_id):
    [row] = re.findall(rf"^\| `{format_id}` \|.*$", PAGE, re.MULTILINE)
    assert f"`--unit {FORMATS[format_id].units[1]}`" in row


def test_python_runs(store, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "corpus").symlink_to(store.path)
    DomainWeights(WEIGHTS).to_json(tmp_path / "runs" / "mine" / "weights.json")
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out.startswith("hf_mixture.py ")
