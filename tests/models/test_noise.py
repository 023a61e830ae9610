"""The proxy's losses are the same in every forward pass, or it is refused."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional

from doremi.errors import InputError
from doremi.mixture import MixtureSettings
from doremi.models import noise
from doremi.models.probes import Probe
from doremi.training import DoReMiTrainer, ExcessLoss
from tests.conformance import zoo
from tests.training.fakes import SEQUENCE_LENGTH, InMemoryStore, arguments, parameters, tiny_model

MIXTURE = MixtureSettings(sequence_length=SEQUENCE_LENGTH)
DROPOUT = {"dropout": 0.2, "attention_dropout": 0.2, "activation_dropout": 0.2}
NOISY = {
    "opt": DROPOUT | {"layerdrop": 0.3},
    "xglm": DROPOUT | {"layerdrop": 0.3},
    "bart": DROPOUT | {"decoder_layerdrop": 0.3},
    "gpt_bigcode": {"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2},
    "seed_oss": {"residual_dropout": 0.2, "attention_dropout": 0.2},
    "biogpt": {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2, "layerdrop": 0.3},
    "phimoe": {"router_jitter_noise": 0.1, "input_jitter_noise": 0.1},
    "gpt2": {"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2},
}


def probe(model):
    return Probe(model, vocab_size=zoo.VOCAB_SIZE)


@pytest.mark.parametrize("name", NOISY)
def test_every_kind_of_noise_is_switched_off_and_is_seen_where_it_is_not(name):
    model = zoo.model(name, **NOISY[name])
    with pytest.raises(InputError, match=f"{name} draws random numbers in training mode"):
        probe(model).check_repeatable(already_off=[])
    assert noise.disable(model)
    probe(model).check_repeatable(already_off=[])
    assert noise.disable(model) == []


def test_values_of_nested_configurations_but_no_switches():
    config = zoo.config("gemma3")
    config.text_config.attention_dropout = 0.1
    config.text_config.drop_tokens = True
    config.vision_config.attention_dropout = 0.3
    assert noise.disable_in(config) == [
        "config.text_config.attention_dropout",
        "config.vision_config.attention_dropout",
    ]
    assert config.text_config.attention_dropout == config.vision_config.attention_dropout == 0.0
    assert config.text_config.drop_tokens is True


class Shaken(nn.Module):
    """A layer with a dropout that no name gives away to `noise.disable`."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.gumbel_share = 0.1

    def forward(self, *args, **kwargs):
        return functional.dropout(self.layer(*args, **kwargs), self.gumbel_share, self.training)


def test_noise_that_nothing_names_stops_the_proxy_before_its_first_step(tmp_path):
    store, model = InMemoryStore(), tiny_model()
    model.model.layers[0].mlp = Shaken(model.model.layers[0].mlp)
    objective = ExcessLoss(tiny_model(seed=1), names=store.names)
    with pytest.raises(InputError, match=r"every forward pass.*Suspects by name: Shaken\.gumbel_share"):
        DoReMiTrainer(model, objective=objective, corpus=store, args=arguments(tmp_path), mixture=MIXTURE)


def test_probing_leaves_buffers_generators_and_modes(tmp_path):
    class Counting(nn.Module):
        """Moves a buffer in training mode, as batch norm and the biases of routers do."""

        def __init__(self, layer):
            super().__init__()
            self.layer = layer
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, hidden):
            if self.training:
                self.passes += 1
            return self.layer(hidden)

    model = tiny_model()
    model.model.layers[1].mlp = Counting(model.model.layers[1].mlp)
    model.eval()
    model.model.layers[0].train()
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    probed = Probe(model, vocab_size=29)
    probed.check(documents="separate")
    probed.check_repeatable(already_off=[])
    assert probed.unused_parameters() == []
    assert model.model.layers[1].mlp.passes == 0
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def after_two_steps(folder, model, *, accumulation, **settings):
    store = InMemoryStore()
    reference = zoo.model("opt", seed=1, dtype=torch.float64, vocab_size=29)
    args = arguments(folder, steps=2, micro_batch=6 // accumulation, accumulation=accumulation, **settings)
    objective = ExcessLoss(reference, names=store.names)
    DoReMiTrainer(model, objective=objective, corpus=store, args=args, mixture=MIXTURE).train()
    return parameters(model)


@pytest.mark.parametrize("settings", [{}, {"neftune_noise_alpha": 5.0}])
def test_splitting_the_batch_changes_nothing_where_the_recipe_asks_for_noise(tmp_path, caplog, settings):
    caplog.set_level(logging.WARNING)
    found = [
        after_two_steps(
            tmp_path / str(accumulation),
            zoo.model("opt", dtype=torch.float64, vocab_size=29, **DROPOUT),
            accumulation=accumulation,
            **settings,
        )
        for accumulation in (1, 3)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-9)
    assert ("neftune_noise_alpha is left out of the proxy" in caplog.text) == bool(settings)
    assert "dropout set to 0 in the proxy" in caplog.text
