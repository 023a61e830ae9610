"""Every causal model type of transformers is right or refused; none is silently wrong.

A dozen of different kinds in `make test`, all of them in `make test-slow`; what to expect is in docs/model-types.md.
"""

from __future__ import annotations

import pytest
import transformers

from doremi.models import noise, suitability
from doremi.training import trainer
from tests.conformance import examine, table, zoo

ENCODERS = {
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert", "rembert",
    "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
MOST_REFUSED = 20


@pytest.fixture(autouse=True)
def _quiet():
    with zoo.quiet():
        yield


def is_right_or_refused(model_type, tmp_path):
    found = examine.examine(model_type, tmp_path)
    assert found.wrong == []
    expected = table.committed()[model_type]
    assert table.status(table.row(table.cells(found))) == table.status(expected)
    if found.refusal is not None:
        assert "\n" not in found.refusal
        return
    assert found.num_outputs in (None, examine.VOCAB_SIZE)
    if found.refusal_when_separate is not None:
        moved = found.figures["a later document moved by"]
        assert moved > table.REFUSED_MOVES or moved != moved


@pytest.mark.parametrize("model_type", zoo.DOZEN)
def test_a_type_of_each_kind_is_right_or_refused(tmp_path, model_type):
    is_right_or_refused(model_type, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [name for name in zoo.ALL_TYPES if name not in zoo.DOZEN])
def test_every_other_type_is_right_or_refused(tmp_path, model_type):
    is_right_or_refused(model_type, tmp_path)


def test_the_page_has_every_type_and_few_are_refused():
    lines = table.committed()
    if f"transformers {transformers.__version__} has" not in table.PAGE.read_text():
        pytest.skip(f"the page is of another version than transformers {transformers.__version__}")
    assert lines.keys() == set(zoo.ALL_TYPES)
    refused = {name for name, line in lines.items() if line.count("|") == 3}
    assert refused >= ENCODERS
    assert len(refused - ENCODERS) <= MOST_REFUSED
    assert "WRONG" not in table.PAGE.read_text()


def test_dropout_that_stays_on_is_seen(tmp_path, monkeypatch):
    """OPT has it as a float that each forward pass reads."""
    monkeypatch.setattr(noise, "disable_in", lambda config: [])
    monkeypatch.setattr(noise, "disable", lambda model: [])
    monkeypatch.setattr(trainer.Probe, "check_repeatable", lambda self, already_off: None)
    wrong = examine.examine("opt", tmp_path).wrong
    assert [entry.split(":")[0] for entry in wrong] == [
        "parameters after 2 steps",
        "alpha",
        "parameters after 2 steps of 3 micro-batches",
        "alpha with 3 micro-batches",
    ]


def test_an_encoder_and_documents_that_leak_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(suitability, "check", lambda config, sequence_length, documents: None)
    monkeypatch.setattr(suitability, "check_config", lambda config, attention, documents: None)
    monkeypatch.setattr(trainer.Probe, "check", lambda self, documents: None)
    assert any("an earlier loss" in entry for entry in examine.examine("bert", tmp_path / "bert").wrong)
    assert any("a later document" in entry for entry in examine.examine("mamba", tmp_path / "mamba").wrong)
