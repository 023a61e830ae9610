"""Held-out losses against a direct computation: every token scored once, whatever the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from doremi.errors import RunFailedError
from doremi.evaluation import perplexity
from tests.training.fakes import VOCAB_SIZE, tiny_model

LENGTH = 6


class HeldOutStore:
    """Documents by domain; ``num_tokens`` counts the EOS that ends each, as the token store does."""

    eos_token_id = 0
    sets = ()

    def __init__(self, documents, num_bytes=None):
        self._documents = documents
        self._num_bytes = num_bytes or {}

    def documents(self, name, split):
        assert split == "held_out"
        return iter(self._documents[name])

    def num_tokens(self, name, split):
        return sum(len(document) + 1 for document in self._documents[name])

    def num_documents(self, name, split):
        return len(self._documents[name])

    def num_bytes(self, name, split):
        return self._num_bytes.get(name, 0)


def random_documents(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, VOCAB_SIZE, size=n).astype(np.uint16) for n in lengths]


def test_rolling_windows_by_hand():
    """Worked out from lm-evaluation-harness' rule: the last window is filled up with context to the left."""
    windows = list(perplexity.rolling_windows(np.arange(1, 9), sequence_length=3, prefix_token=0))
    assert [(w.inputs.tolist(), w.targets.tolist()) for w in windows] == [
        ([0, 1, 2], [1, 2, 3]),
        ([3, 4, 5], [4, 5, 6]),
        ([5, 6, 7], [7, 8]),
    ]
    short = list(perplexity.rolling_windows(np.array([5, 6]), sequence_length=3, prefix_token=0))
    assert [(w.inputs.tolist(), w.targets.tolist()) for w in short] == [([0, 5], [5, 6])]
    assert not list(perplexity.rolling_windows(np.array([], int), sequence_length=3, prefix_token=0))


def direct_nats(model, documents):
    """Mean loss, one token and one forward pass at a time."""
    losses = []
    for document in documents:
        tokens = [0, *document.tolist()]
        for i in range(1, len(tokens)):
            start = (i - 1) // LENGTH * LENGTH  # windows begin at multiples of the length ...
            end = min(start + LENGTH, len(document))
            start = max(end - LENGTH, 0) if start else 0  # ... but the last one looks back
            logits = model(torch.tensor([tokens[start:i]])).logits[0, -1]
            losses.append(-float(torch.log_softmax(logits, -1)[tokens[i]].detach()))
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_agrees_with_a_direct_computation_for_any_batch_size(batch_size):
    model = tiny_model(dtype=torch.float32).train()
    documents = {"x": random_documents([1, 6, 7, 20]), "y": random_documents([3, 13], seed=1)}
    held_out = perplexity.collect(
        HeldOutStore(documents), ["y", "x"], sequence_length=LENGTH, max_tokens_per_domain=None
    )
    assert held_out.num_tokens.tolist() == [16, 34]
    nats = perplexity.nats_per_token(model, held_out, batch_size=batch_size)
    np.testing.assert_allclose(nats, [direct_nats(model, documents[n]) for n in "yx"], atol=1e-6)
    assert model.training


@pytest.mark.parametrize("batch_size", [1, 3])
def test_losses_of_documents_are_sums_over_their_tokens(batch_size):
    model = tiny_model(dtype=torch.float32)
    documents = {"x": random_documents([1, 20, 7]), "y": random_documents([13], seed=1)}
    held_out = perplexity.collect(
        HeldOutStore(documents), ["x", "y"], sequence_length=LENGTH, max_tokens_per_domain=None
    )
    found = perplexity.document_losses(model, held_out, batch_size=batch_size)
    for name, places in zip("xy", held_out.documents, strict=True):
        chosen = [documents[name][place] for place in places]
        assert found[name].num_tokens.tolist() == [len(document) for document in chosen]
        expected = [direct_nats(model, [document]) * len(document) for document in chosen]
        np.testing.assert_allclose(found[name].nats, expected, atol=1e-5)


def test_the_cap_is_the_same_for_all_domains_and_cuts_the_last_document():
    documents = {"x": random_documents([10] * 9), "y": random_documents([4])}
    held_out = perplexity.collect(HeldOutStore(documents), ["x", "y"], sequence_length=6, max_tokens_per_domain=25)
    assert held_out.num_tokens.tolist() == [25, 4]
    scored = {tuple(w.targets[:3].tolist()) for w in held_out.windows[0]}
    starts = [tuple(document[:3].tolist()) for document in documents["x"]]
    first, *others = [index for index, start in enumerate(starts) if start in scored]
    assert first == 0
    assert max(others) > 3  # from all over the domain, not its first three documents


def test_dropout_is_off_while_a_model_in_training_is_scored():
    model = tiny_model(dtype=torch.float32, attention_dropout=0.5)
    store = HeldOutStore({"x": random_documents([20, 20])})
    held_out = perplexity.collect(store, ["x"], sequence_length=6, max_tokens_per_domain=None)
    in_training = perplexity.nats_per_token(model.train(), held_out, batch_size=4)
    in_evaluation = perplexity.nats_per_token(model.eval(), held_out, batch_size=4)
    np.testing.assert_array_equal(in_training, in_evaluation)


def test_bits_per_byte():
    store = HeldOutStore({"x": random_documents([8, 8]), "ids only": random_documents([8])}, num_bytes={"x": 64})
    held_out = perplexity.collect(store, ["x", "ids only"], sequence_length=6, max_tokens_per_domain=None)
    bits = perplexity.bits_per_byte(np.array([math.log(2) * 6, 1.0]), held_out)
    assert bits[0] == pytest.approx(6 / 4)  # 4 bytes a token
    assert math.isnan(bits[1])


def test_a_diverged_model_is_named():
    model = tiny_model(dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight[1] = float("nan")
    held_out = perplexity.collect(
        HeldOutStore({"odd": random_documents([8])}), ["odd"], sequence_length=6, max_tokens_per_domain=None
    )
    with pytest.raises(RunFailedError, match="held-out loss of domain 'odd' is nan"):
        perplexity.nats_per_token(model, held_out, batch_size=4)
    with pytest.raises(RunFailedError, match="held-out loss of domain 'odd' is nan"):
        perplexity.document_losses(model, held_out, batch_size=4)
