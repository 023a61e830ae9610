"""Losses of final models are kept, and used again only for the same model and the same text."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from doremi.errors import InputError
from doremi.evidence.paired_documents import DocumentLosses
from doremi.experiment import ledger, scoring
from doremi.methods.protocol import Run
from tests import made_up


@pytest.fixture
def num_scored(monkeypatch):
    """How many models were scored; the n-th has n nats a token."""
    scored = []

    def document_losses(model, held_out, *, batch_size, description):
        scored.append((model, batch_size, description))
        sizes = [np.bincount([w.document for w in windows], [len(w.targets) for w in windows])
                 for windows in held_out.windows]  # fmt: skip
        return {
            name: DocumentLosses(len(scored) * size, size.astype(np.int64))
            for name, size in zip(held_out.names, sizes, strict=True)
        }

    monkeypatch.setattr(scoring.checkpoints, "load_model", lambda folder: folder)
    monkeypatch.setattr(scoring.perplexity, "document_losses", document_losses)
    return scored


def run_of(experiment, *, digest=None):
    made_up.finish(experiment, reference(experiment), digest=digest)
    return ledger.training_run(experiment, reference(experiment))


def reference(experiment):
    return Run("reference", 7, experiment.prior, label="reference")


def score(experiment, run):
    return scoring.score(experiment, run, scoring.held_out_set(experiment))


def test_a_model_is_scored_once(tmp_path, num_scored):
    experiment = made_up.make(tmp_path, evaluation={"batch_size": 3})
    run = run_of(experiment)
    first = score(experiment, run)
    assert num_scored == [(run.folder, 3, "evaluate reference")]
    again = score(experiment, run)
    assert len(num_scored) == 1
    for name in "abc":
        np.testing.assert_array_equal(again[name].nats, first[name].nats)
        np.testing.assert_array_equal(again[name].num_tokens, first[name].num_tokens)
    table = pq.read_table(run.folder / "held_out.parquet").to_pydict()
    assert table["document"] == [*scoring.held_out_set(experiment).documents[0].tolist(), 0, 1, 0]
    assert sorted(table["document"][:3]) == [0, 1, 2]


CAPS = {"max_tokens_per_domain": 5, "max_tokens_during_training": 5}
MAIN = {"overrides": {"main": {"sequence_length": 16}}}


@pytest.mark.parametrize(
    "changes", [{"evaluation": CAPS | {"max_tokens_per_domain": 4}}, {"training": MAIN}], ids=["cap", "window"]
)
def test_another_text_or_window_is_scored_anew(tmp_path, num_scored, changes):
    before = made_up.make(tmp_path, evaluation=CAPS)
    score(before, run_of(before))
    after = made_up.make(tmp_path, **({"evaluation": CAPS} | changes))
    found = score(after, run_of(after))
    assert len(num_scored) == 2
    assert found["c"].nats.sum() == 2 * found["c"].num_tokens.sum()


def test_windows_are_as_long_as_those_of_the_main_model(tmp_path):
    held_out = scoring.held_out_set(made_up.make(tmp_path, training=MAIN))
    assert max(len(window.inputs) for windows in held_out.windows for window in windows) > 8


def test_another_model_is_scored_anew(tmp_path, num_scored):
    before = made_up.make(tmp_path)
    score(before, run_of(before))
    after = made_up.make(tmp_path, training={"learning_rate": 0.1})
    score(after, run_of(after))
    assert len(num_scored) == 2


def test_fewer_domains_are_scored_anew(tmp_path, num_scored):
    before = made_up.make(tmp_path)
    score(before, run_of(before))
    after = made_up.make(tmp_path, prior={"a": 0.5, "b": 0.5})
    assert list(score(after, run_of(after))) == ["a", "b"]
    assert len(num_scored) == 2


def test_a_batch_size_changes_no_key(tmp_path, num_scored):
    experiment = made_up.make(tmp_path)
    run, held_out = run_of(experiment), scoring.held_out_set(experiment)
    other = made_up.make(tmp_path, evaluation={"batch_size": 3})
    assert scoring._key(other, run, held_out) == scoring._key(experiment, run, held_out)


def test_a_model_of_other_inputs_is_refused(tmp_path, num_scored):
    """Such as of a weights file that was changed since, or of a corpus that was prepared again."""
    experiment = made_up.make(tmp_path)
    run = run_of(experiment, digest="of other weights")
    with pytest.raises(
        InputError, match=r"runs/reference-\w{12} was finished with other inputs than the recipe now asks"
    ):
        score(experiment, run)
    assert not num_scored


def test_a_model_that_is_not_trained_is_named(tmp_path, num_scored):
    experiment = made_up.make(tmp_path)
    run = ledger.training_run(experiment, reference(experiment))
    with pytest.raises(InputError, match=r"reference is not trained yet .*runs/reference-.*`doremi run` trains"):
        score(experiment, run)


def test_the_cap_is_that_of_the_end(tmp_path):
    held_out = scoring.held_out_set(made_up.make(tmp_path, evaluation=CAPS | {"max_tokens_per_domain": 4}))
    assert held_out.num_tokens.tolist() == [4, 4, 4]


@pytest.mark.parametrize(("num_bytes", "expected"), [(0, float("nan")), (600, 600)])
def test_the_store_knows_the_bytes_of_all_held_out_text(tmp_path, monkeypatch, num_bytes, expected):
    monkeypatch.setattr(made_up.Store, "num_bytes", lambda self, name, split: num_bytes)
    whole = scoring.held_out_set(made_up.make(tmp_path))
    np.testing.assert_allclose(whole.bytes_per_token, expected / whole.num_tokens)
    capped = scoring.held_out_set(made_up.make(tmp_path, evaluation=CAPS))
    assert np.isnan(capped.bytes_per_token).all() == (num_bytes == 0)


def test_bits_per_byte_are_of_the_text_that_is_scored(tmp_path):
    experiment = made_up.make(tmp_path, evaluation={"max_tokens_per_domain": 4})
    tokenizer = scoring.checkpoints.tokenizers.load(str(experiment.store.tokenizer_path))
    held_out = scoring.held_out_set(experiment)
    for name, windows, bytes_per_token in zip("abc", held_out.windows, held_out.bytes_per_token, strict=True):
        text = tokenizer.decode(np.concatenate([window.targets for window in windows]))
        assert text in made_up.DOCUMENTS[name][0]  # the first is scored first, and cut at the cap
        assert bytes_per_token == pytest.approx(len(text.encode()) / 4)
    whole = scoring.held_out_set(made_up.make(tmp_path))
    for name, num_tokens, bytes_per_token in zip("abc", whole.num_tokens, whole.bytes_per_token, strict=True):
        assert bytes_per_token == pytest.approx(len("".join(made_up.DOCUMENTS[name])) / num_tokens)
