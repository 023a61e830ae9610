"""What a model adds to its cross entropy, above all the load-balancing loss of a mixture of experts, counts as well."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from doremi.errors import InputError
from doremi.mixture import MixtureSettings
from doremi.models.probes import Probe
from doremi.models.token_loss import has_auxiliary_loss, token_losses, token_nats
from doremi.training.signals import ExcessLoss, TokenMean, count_targets
from doremi.training.trainer import DoReMiTrainer
from tests.training.architectures import SIZES
from tests.training.fakes import SEQUENCE_LENGTH, VOCAB_SIZE, InMemoryStore, arguments, parameters

EXPERTS = {"output_router_logits": True, "router_aux_loss_coef": 0.5, "num_experts_per_tok": 2}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "attn_layer_indices": [1]}
ARCHITECTURES = {
    "mixtral": ("mixtral", EXPERTS | {"num_local_experts": 4}),
    "olmoe": ("olmoe", EXPERTS | {"num_experts": 4}),
    "qwen3_moe": ("qwen3_moe", EXPERTS | {"num_experts": 4, "moe_intermediate_size": 8, "decoder_sparse_step": 1}),
    "granitemoe (divided)": ("granitemoe", EXPERTS | {"num_local_experts": 4, "logits_scaling": 0.25}),
    "gpt_oss": ("gpt_oss", EXPERTS | {"num_local_experts": 4}),
    "jetmoe": ("jetmoe", EXPERTS | {"aux_loss_coef": 0.5, "num_local_experts": 4, "kv_channels": 8}),
    "bamba (z-loss of all logits)": ("bamba", MAMBA | {"z_loss_coefficient": 0.5}),
}
STORE = InMemoryStore()


def build(name, *, seed=0, vocab_size=SIZES["vocab_size"], **changes):
    """Large random parameters, so that experts are far from balanced."""
    model_type, special = ARCHITECTURES[name]
    sizes = SIZES | {"vocab_size": vocab_size} | special | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(model_type, **sizes)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def batch():
    tokens = torch.randint(3, VOCAB_SIZE, (4, 10), generator=torch.Generator().manual_seed(0))
    return {"input_ids": tokens, "labels": tokens}


def gradients(loss, model):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_mean_nats_and_what_is_added_are_the_models_own_loss(name):
    model = build(name).train()
    assert has_auxiliary_loss(model.config)
    expected = model(**batch(), use_cache=False).loss
    expected_gradients = gradients(expected, model)
    losses = token_losses(model, batch())
    assert losses.auxiliary > 0.05
    torch.testing.assert_close(losses.nats.mean() + losses.auxiliary, expected, rtol=1e-5, atol=1e-6)
    found = gradients(losses.nats.mean() + losses.auxiliary, model)
    torch.testing.assert_close(found, expected_gradients, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(token_nats(model, batch()), losses.nats, rtol=1e-6, atol=1e-6)


def test_a_model_that_adds_nothing():
    model = build("mixtral", output_router_logits=False)
    assert not has_auxiliary_loss(model.config)
    assert token_losses(model, batch()).auxiliary is None
    assert not has_auxiliary_loss(AutoConfig.for_model("llama"))


def test_the_losses_of_a_mixture_of_experts_still_need_no_logits_of_all_positions():
    """The output layer answers for one position of a row; its other call is for the losses, in chunks."""
    model, seen = build("mixtral"), []
    token_nats(model, batch())  # installs
    linear = model.get_output_embeddings()
    linear.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    token_losses(model, batch())
    assert seen == [(4, 1, SIZES["vocab_size"]), (4 * 9,)]


class Recording(DoReMiTrainer):
    """Keeps the micro-batches that it trained on."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.batches = [*getattr(self, "batches", []), inputs]
        return super().compute_loss(model, inputs, *args, **kwargs)


def make(folder, *, proxy=False, **settings):
    reference = build("mixtral", seed=2, vocab_size=VOCAB_SIZE)
    return Recording(
        build("mixtral", seed=1, vocab_size=VOCAB_SIZE),
        objective=ExcessLoss(reference, names=STORE.names) if proxy else TokenMean(STORE.names),
        corpus=STORE,
        args=arguments(folder, **{"steps": 8, "lr_scheduler_type": "constant", "warmup_steps": 0} | settings),
        mixture=MixtureSettings(sequence_length=SEQUENCE_LENGTH),
    )


class OwnLoss(Trainer):
    """transformers' Trainer with the model's own loss, on the batches of our loader."""

    def get_train_dataloader(self):
        return self.loader

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(input_ids=inputs["input_ids"], labels=inputs["labels"], use_cache=False).loss


def test_plain_training_is_that_of_transformers_trainer(tmp_path):
    """Eight steps of a Mixtral whose experts are unbalanced; without the term, parameters end 20 % elsewhere."""
    ours = make(tmp_path / "ours")
    bare = OwnLoss(model=build("mixtral", seed=1, vocab_size=VOCAB_SIZE), args=ours.args)
    bare.loader = make(tmp_path / "loader").loader
    ours.train()
    bare.train()
    moved = parameters(bare.model) - parameters(build("mixtral", seed=1, vocab_size=VOCAB_SIZE))
    assert (parameters(ours.model) - parameters(bare.model)).norm() < 1e-3 * moved.norm()


@pytest.mark.parametrize("proxy", [True, False])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_its_coefficient_does_not_depend_on_the_split_of_the_batch(tmp_path, proxy, accumulation):
    """One step of SGD: the gradient is that of Eq. 1, plus the mean of what the micro-batches add."""
    settings = {"steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 1e9}
    trainer = make(tmp_path, proxy=proxy, micro_batch=8 // accumulation, accumulation=accumulation, **settings)
    trainer.train()
    model, loss = build("mixtral", seed=1, vocab_size=VOCAB_SIZE), 0.0
    assert len(trainer.batches) == accumulation
    for part in trainer.batches:
        output = model(input_ids=part["input_ids"], use_cache=False)
        logits = output.logits[:, :-1].log_softmax(-1)
        nats = -logits.gather(2, part["input_ids"][:, 1:, None]).squeeze(2)
        weights = trainer.objective.token_weights(part["domain_ids"])
        loss = loss + (weights * nats.sum(1)).sum() + 0.5 * output.aux_loss / accumulation
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(parameters(trainer.model), parameters(model) - gradient, rtol=0, atol=1e-5)


def test_its_coefficient_does_not_depend_on_the_number_of_processes(tmp_path, monkeypatch):
    """Gradients are averaged over two processes: each has twice its share, which is half of the rows of the step."""
    trainer = make(tmp_path, micro_batch=4)
    part = next(iter(trainer.loader))
    trainer.objective.weigh(count_targets(part, num_domains=3))
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda self: 2))
    losses = token_losses(trainer.model, part)
    own = (trainer.objective.token_weights(part["domain_ids"]) * losses.nats.sum(1)).sum()
    assert losses.auxiliary > 0.05
    loss = trainer._loss(losses, part)
    torch.testing.assert_close(loss, 2 * own + losses.auxiliary, rtol=1e-6, atol=0, check_dtype=False)


def test_a_model_that_cannot_compute_what_it_adds_is_refused(monkeypatch):
    """As Flint, whose forward pass finds no routers. The probe of every run is where it shows."""
    model = build("mixtral")
    monkeypatch.setattr("transformers.models.mixtral.modeling_mixtral.load_balancing_loss_func", lambda *_: ()[0])
    with pytest.raises(InputError, match=r"mixtral computes no losses of a row of 24 tokens: .*index out of range"):
        Probe(model, vocab_size=VOCAB_SIZE).check_forward()
