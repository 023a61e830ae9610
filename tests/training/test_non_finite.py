"""What is not finite stops the run before the optimizer step, whichever quantity it is, and says which."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from doremi.errors import RunFailedError
from doremi.training import checkpoints, trainer
from doremi.training.signals import ExcessLoss, TokenMean
from tests.training.fakes import arguments, parameters, tiny_model
from tests.training.test_trainer import MIXTURE, STORE

STEP = 4  # of the fault; checkpoints are saved after steps 2 and 4
NAN, INF = float("nan"), float("inf")


class Fault(TrainerCallback):
    """Inflicts a fault at the beginning of a step, and keeps what the model and the optimizer were before it."""

    def __init__(self, inflict):
        self.inflict = inflict

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        if state.global_step == STEP - 1:
            self.inflict(model)
            self.before = snapshot(model, optimizer)


def snapshot(model, optimizer):
    moments = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq", "step")]
    assert moments
    return torch.cat([parameters(model), *(moment.double().flatten() for moment in moments)])


def run_until_it_stops(folder, objective, inflict, *, message, **settings):
    """Train into the fault; check that nothing was touched after it and that the checkpoint before is whole."""
    fault = Fault(inflict)
    run = trainer.DoReMiTrainer(
        tiny_model(1),
        objective=objective,
        corpus=STORE,
        args=arguments(folder, steps=10, save_steps=2, **settings),
        mixture=MIXTURE,
        callbacks=[fault],
    )
    with pytest.raises(RunFailedError, match=message):
        run.train()
    after = snapshot(run.model, run.optimizer)
    torch.testing.assert_close(after, fault.before, rtol=0, atol=0, equal_nan=True)
    assert checkpoints.steps(folder) == [2]
    assert checkpoints.newest_complete(folder) == 2


def proxy_objective(**settings):
    return ExcessLoss(tiny_model(2), names=STORE.names, **settings)


def spoil_parameter(value):
    def inflict(model):
        with torch.no_grad():
            model.lm_head.weight[7] = value

    return inflict


def spoil_losses(monkeypatch, value):
    """Losses of domain 'c' that are not finite, with the gradient that they would have if they were.

    Such is the loss of a token whose logit a model masks with -inf.
    """

    def inflict(model):
        measured, trained = trainer.token_nats, trainer.token_losses

        def spoil(nats, batch):
            return nats + torch.where(batch["domain_ids"] == 2, value, 0.0)[:, None]

        def token_losses(model, batch):
            losses = trained(model, batch)
            return losses._replace(nats=spoil(losses.nats, batch))

        monkeypatch.setattr(trainer, "token_nats", lambda model, batch: spoil(measured(model, batch), batch))
        monkeypatch.setattr(trainer, "token_losses", token_losses)

    return inflict


def spoil_gradient(model):
    model.lm_head.weight.register_hook(lambda gradient: gradient * INF)


PLAIN = pytest.mark.parametrize(
    ("micro_batch", "accumulation", "max_grad_norm"), [(8, 1, 1.0), (2, 4, 1.0), (8, 1, 0.0)]
)
PROXY = pytest.mark.parametrize(
    ("micro_batch", "accumulation", "weights_update"), [(8, 1, "exact"), (2, 4, "exact"), (2, 4, "delayed")]
)


@PLAIN
def test_nan_in_a_parameter_of_a_plain_run(tmp_path, micro_batch, accumulation, max_grad_norm):
    run_until_it_stops(
        tmp_path,
        TokenMean(STORE.names),
        spoil_parameter(NAN),
        message=r"step 4: the gradient norm is nan, the loss of 'a', 'b', 'c' is not finite; stopped before the optim",
        micro_batch=micro_batch,
        accumulation=accumulation,
        max_grad_norm=max_grad_norm,
    )


@PLAIN
@pytest.mark.parametrize("value", [NAN, INF])
def test_loss_of_one_domain_of_a_plain_run_though_its_gradient_is_finite(
    tmp_path, monkeypatch, value, micro_batch, accumulation, max_grad_norm
):
    run_until_it_stops(
        tmp_path,
        TokenMean(STORE.names),
        spoil_losses(monkeypatch, value),
        message=r"step 4: the gradient norm is nan, the loss of 'c' is not finite",
        micro_batch=micro_batch,
        accumulation=accumulation,
        max_grad_norm=max_grad_norm,
    )


@pytest.mark.parametrize("objective", [TokenMean(STORE.names), proxy_objective()], ids=["plain", "proxy"])
@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0])
def test_gradient_that_overflows_by_itself(tmp_path, objective, max_grad_norm):
    run_until_it_stops(
        tmp_path,
        objective,
        spoil_gradient,
        message=r"step 4: the gradient norm is (inf|nan), though the loss of every domain is finite",
        max_grad_norm=max_grad_norm,
    )


@PROXY
@pytest.mark.parametrize("value", [NAN, INF])
def test_loss_of_one_domain_of_the_proxy(tmp_path, monkeypatch, value, weights_update, micro_batch, accumulation):
    run_until_it_stops(
        tmp_path,
        proxy_objective(weights_update=weights_update),
        spoil_losses(monkeypatch, value),
        message=rf"step 4: excess loss sum of domain 'c' is {value}; stopped before the optimizer step",
        micro_batch=micro_batch,
        accumulation=accumulation,
    )


@PROXY
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_loss_of_the_reference(tmp_path, monkeypatch, value, weights_update, micro_batch, accumulation):
    """An infinite one would be clamped to an excess of 0, and the domain be ignored from then on."""
    objective = proxy_objective(weights_update=weights_update)

    def inflict(model):
        real = objective._reference_nats

        def reference_nats(batch):
            nats = real(batch)
            nats[batch["domain_ids"] == 1, 3] = value
            return nats

        monkeypatch.setattr(objective, "_reference_nats", reference_nats)

    run_until_it_stops(
        tmp_path,
        objective,
        inflict,
        message=r"step 4: excess loss sum of domain 'b' is nan",
        micro_batch=micro_batch,
        accumulation=accumulation,
    )


def test_weight_that_is_not_finite(tmp_path):
    objective = proxy_objective()

    def inflict(model):
        objective.dro = dataclasses.replace(objective.dro, weights=np.array([0.5, NAN, 0.5]))

    run_until_it_stops(tmp_path, objective, inflict, message=r"step 4: weight of domain '[abc]' is nan")


def test_a_long_list_of_domains_is_cut(tmp_path):
    from tests.training.fakes import InMemoryStore

    store = InMemoryStore(num_rows=(8,) * 8)
    run = trainer.DoReMiTrainer(
        tiny_model(1), objective=TokenMean(store.names), corpus=store, args=arguments(tmp_path), mixture=MIXTURE
    )
    run._nats_sums += NAN
    with pytest.raises(RunFailedError, match=r"step 1: .* loss of 'a', 'b', 'c', 'd', 'e' and 3 more is not finite"):
        run._stop_for_non_finite(NAN)
