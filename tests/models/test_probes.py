"""What a model is, shown by its losses: planted defects are seen, and types that have them are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from doremi.errors import InputError
from doremi.mixture import MixtureSettings
from doremi.models.probes import Probe
from doremi.training import DoReMiTrainer, TokenMean
from tests.conformance import zoo
from tests.training.fakes import SEQUENCE_LENGTH, InMemoryStore, arguments, tiny_model


class Mixing(nn.Module):
    """Adds a little of the hidden states ``shift`` places away: what comes later (-1), or what came before (4)."""

    def __init__(self, layer, *, shift, share):
        super().__init__()
        self.layer, self.shift, self.share = layer, shift, share

    def forward(self, hidden):
        return self.layer(hidden) + self.share * hidden.roll(self.shift, dims=1)


def mixing(shift, share):
    model = tiny_model(dtype=torch.float32)
    model.model.layers[0].mlp = Mixing(model.model.layers[0].mlp, shift=shift, share=share)
    return Probe(model, vocab_size=29)


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_layer_that_looks_ahead(share):
    with pytest.raises(InputError, match=r"llama is not causal.* moves by \d"):
        mixing(-1, share).check_causal()


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_layer_that_looks_back_beyond_its_document(share):
    probe = mixing(4, share)
    with pytest.raises(InputError, match=r"documents: separate is not possible with llama: .*Use documents: joined"):
        probe.check_separate()


def test_rows_shorter_than_four_documents():
    for length in (2, 3, 5, 9):
        probe = Probe(tiny_model(), vocab_size=29, sequence_length=length)
        probe.check(documents="separate")
        assert probe._tokens().shape == (1, length)


def test_losses_that_are_not_finite_are_left_to_training():
    model = tiny_model()
    model.lm_head.weight.data[3] = torch.nan
    Probe(model, vocab_size=29).check(documents="separate")


@pytest.mark.parametrize(
    ("name", "documents", "message"),
    [
        ("bert", "joined", "bert is not causal"),
        ("xlnet", "joined", "xlnet is not causal"),
        ("reformer", "joined", "reformer draws random numbers in evaluation too"),
        ("opt", "separate", "not possible with opt"),
        ("mamba", "separate", "not possible with mamba"),
        ("qwen3_next", "separate", "not possible with qwen3_next"),
        ("bloom", "separate", "not possible with bloom"),
    ],
)
def test_the_trainer_refuses_types(tmp_path, name, documents, message):
    store = InMemoryStore()
    mixture = MixtureSettings(sequence_length=SEQUENCE_LENGTH, documents=documents)
    with pytest.raises(InputError, match=message):
        DoReMiTrainer(
            zoo.model(name),
            objective=TokenMean(store.names),
            corpus=store,
            args=arguments(tmp_path),
            mixture=mixture,
        )


def test_what_fresh_parameters_hide_is_seen_on_a_copy(tmp_path):
    store = InMemoryStore()
    model = zoo.model("opt")
    for name, parameter in model.named_parameters():
        if "out_proj" in name or "fc2" in name:
            torch.nn.init.zeros_(parameter)  # layers that add nothing yet, as many types begin
    Probe(model, vocab_size=29).check_separate()
    with pytest.raises(InputError, match="not possible with opt"):
        DoReMiTrainer(
            model,
            objective=TokenMean(store.names),
            corpus=store,
            args=arguments(tmp_path),
            mixture=MixtureSettings(sequence_length=SEQUENCE_LENGTH, documents="separate"),
        )


def test_parameters_that_no_loss_depends_on():
    unused = Probe(zoo.model("bart"), vocab_size=29).unused_parameters()
    assert unused
    assert all("encoder_attn" in name for name in unused)
    assert Probe(zoo.model("llama"), vocab_size=29).unused_parameters() == []
