"""When the weights of a step come from: its own losses, those of the step before, or a cache of the reference's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from doremi.mixture import MixtureSettings
from doremi.training import signals as objective_module
from doremi.training.reference_cache import ReferenceCache
from doremi.training.schedules import LearningRateSchedule
from doremi.training.signals import ExcessLoss
from doremi.training.trainer import DoReMiTrainer
from tests.training.fakes import SEQUENCE_LENGTH, InMemoryStore, arguments, parameters, tiny_model

STORE = InMemoryStore()
MIXTURE = MixtureSettings(sequence_length=SEQUENCE_LENGTH)
PLAIN_SGD = {"optim": "sgd", "learning_rate": 1.0, "warmup_steps": 0, "max_grad_norm": 1e9}


def proxy(folder, *, cache=None, weights_update="exact", on_update=None, dtype=torch.float64, **settings):
    trainer = DoReMiTrainer(
        tiny_model(1, dtype),
        objective=ExcessLoss(tiny_model(2, dtype), names=STORE.names, cache=cache, weights_update=weights_update),
        corpus=STORE,
        args=arguments(folder, **settings),
        mixture=MIXTURE,
        on_update=on_update,
        learning_rate_schedule=LearningRateSchedule("constant", 1.0),
    )
    trainer.train()
    return trainer


def two_steps_by_hand(*, delayed):
    """Parameters after two steps of gradient descent, and α_2, from the formulas alone."""
    schedule = MIXTURE.schedule(STORE, STORE.names, weights=dict.fromkeys(STORE.names, 1), global_batch_size=8, seed=3)
    batches = MIXTURE.loader(STORE, schedule, micro_batch_size=8)
    model, reference = tiny_model(1), tiny_model(2)

    def nats(scored, batch):
        logits = scored(input_ids=batch["input_ids"]).logits[:, :-1]
        return -torch.log_softmax(logits, -1).gather(2, batch["input_ids"][:, 1:, None]).squeeze(2)

    alpha = torch.full((3,), 1 / 3, dtype=torch.float64)
    for batch, _ in zip(batches, range(2), strict=False):
        own = nats(model, batch)
        excess = (own.detach() - nats(reference, batch).detach()).clamp(min=0)
        members = [batch["domain_ids"] == d for d in range(3)]
        scores = torch.stack([excess[m].mean() for m in members])
        updated = 0.999 * torch.softmax(alpha.log() + scores, 0) + 0.001 / 3
        used = alpha if delayed else updated
        model.zero_grad()
        sum(used[d] * own[members[d]].mean() for d in range(3)).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= parameter.grad
        alpha = updated
    return parameters(model), alpha.numpy()


@pytest.mark.parametrize("weights_update", ["exact", "delayed"])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_two_steps_are_the_formula_with_the_weights_of_this_step_or_of_the_one_before(
    tmp_path, weights_update, accumulation
):
    trainer = proxy(
        tmp_path,
        weights_update=weights_update,
        steps=2,
        micro_batch=8 // accumulation,
        accumulation=accumulation,
        **PLAIN_SGD,
    )
    expected, alpha = two_steps_by_hand(delayed=weights_update == "delayed")
    torch.testing.assert_close(parameters(trainer.model), expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(trainer.objective.dro.weights, alpha, rtol=1e-10)


@pytest.mark.parametrize(("weights_update", "num_forwards"), [("exact", 4), ("delayed", 2)])
def test_delayed_weights_take_no_second_forward_pass(tmp_path, weights_update, num_forwards):
    calls = []
    trainer = DoReMiTrainer(
        model := tiny_model(1),
        objective=ExcessLoss(tiny_model(2), names=STORE.names, weights_update=weights_update),
        corpus=STORE,
        args=arguments(tmp_path, steps=1, micro_batch=4, accumulation=2),
        mixture=MIXTURE,
    )
    model.get_input_embeddings().register_forward_hook(lambda *_: calls.append(1))
    trainer.train()
    assert len(calls) == num_forwards


@pytest.mark.parametrize(("weights_update", "measured"), [("exact", 2), ("delayed", 0)])
def test_what_is_measured_is_what_is_trained_on(tmp_path, weights_update, measured):
    """The same mode, precision and inputs as the training forward, without a gradient."""
    trainer = DoReMiTrainer(
        model := tiny_model(1, torch.float32),
        objective=ExcessLoss(tiny_model(2, torch.float32), names=STORE.names, weights_update=weights_update),
        corpus=STORE,
        args=arguments(tmp_path, steps=1, micro_batch=4, accumulation=2, bf16=True),
        mixture=MIXTURE,
    )
    passes = []
    watched = model.model.layers[0].mlp

    def watch(module, inputs, output):
        passes.append((module.training, model.training, torch.is_grad_enabled(), output.dtype, output.detach().clone()))

    watched.register_forward_hook(watch)
    model.eval()  # as a callback may leave it behind
    trainer.train()
    modes, outputs = [entry[:4] for entry in passes], [entry[4] for entry in passes]
    assert modes == measured * [(True, True, False, torch.bfloat16)] + 2 * [(True, True, True, torch.bfloat16)]
    for index in range(measured):
        torch.testing.assert_close(outputs[index], outputs[measured + index], rtol=0, atol=0)


def test_a_callback_that_evaluates_does_not_change_what_is_measured_next(tmp_path):
    """The model may be left in evaluation mode between steps; the next step is measured in training mode."""
    modes = []

    class Leaves(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            model.eval()

    trainer = DoReMiTrainer(
        model := tiny_model(1),
        objective=ExcessLoss(tiny_model(2), names=STORE.names),
        corpus=STORE,
        args=arguments(tmp_path, steps=3, micro_batch=4, accumulation=2),
        mixture=MIXTURE,
        callbacks=[Leaves()],
    )
    model.model.layers[1].register_forward_hook(lambda module, *_: modes.append(module.training))
    trainer.train()
    assert modes == 12 * [True]


def test_a_callback_sees_every_update(tmp_path):
    seen = []
    trainer = proxy(
        tmp_path, steps=5, micro_batch=4, accumulation=2, on_update=lambda step, o: seen.append((step, o.dro.weights))
    )
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(np.mean([w for _, w in seen], axis=0), trainer.objective.dro.average_weights, rtol=1e-12)


# ---- the reference's losses from a cache ----


def open_cache(folder, dtype="float32"):
    counts = {name: STORE.num_sequences(name, SEQUENCE_LENGTH) for name in STORE.names}
    return ReferenceCache.open(folder, row_counts=counts, sequence_length=SEQUENCE_LENGTH, key={}, dtype=dtype)


def make_loader():
    schedule = MIXTURE.schedule(STORE, STORE.names, weights=dict.fromkeys(STORE.names, 1), global_batch_size=8, seed=3)
    return MIXTURE.loader(STORE, schedule, micro_batch_size=8)


def count_reference_passes(monkeypatch):
    calls = []
    real = objective_module.token_nats

    def counting(model, batch):
        calls.append(len(batch["rows"]))
        return real(model, batch)

    monkeypatch.setattr(objective_module, "token_nats", counting)
    return calls


def test_what_is_stored_is_not_written_again(tmp_path):
    """Where another row of the micro-batch is missing, all are computed, but only that one is stored."""
    cache = open_cache(tmp_path / "cache")
    batch = next(iter(make_loader()))
    domain_ids, rows = batch["domain_ids"].numpy()[:1], batch["rows"].numpy()[:1]
    stored = np.full((1, SEQUENCE_LENGTH - 1), 1.25, np.float32)
    cache.write(domain_ids, rows, stored)
    objective = ExcessLoss(tiny_model(2, torch.float32), names=STORE.names, cache=cache)
    objective.sums(torch.zeros(8, SEQUENCE_LENGTH - 1), batch)
    np.testing.assert_array_equal(cache.read(domain_ids, rows).nats, stored)


def test_a_cached_run_is_the_run_without_and_computes_no_row_twice(tmp_path, monkeypatch):
    """82 rows, 8 a step for 20 steps: most are drawn twice. A second run reads everything."""
    calls = count_reference_passes(monkeypatch)
    plain = proxy(tmp_path / "plain", dtype=torch.float32)
    assert len(calls) == 20
    calls.clear()
    first = proxy(tmp_path / "first", dtype=torch.float32, cache=open_cache(tmp_path / "cache"))
    assert 11 <= len(calls) < 20  # 82 rows take at least 11 batches, and the last steps repeat earlier rows
    calls.clear()
    second = proxy(tmp_path / "second", dtype=torch.float32, cache=open_cache(tmp_path / "cache"))
    assert calls == []
    assert torch.equal(parameters(second.model), parameters(first.model))
    np.testing.assert_array_equal(second.objective.dro.average_weights, first.objective.dro.average_weights)
    np.testing.assert_allclose(first.objective.dro.average_weights, plain.objective.dro.average_weights, rtol=1e-6)
    coverage = open_cache(tmp_path / "cache").coverage()
    assert coverage["c"] == 1.0  # 17 rows, 53 draws
    assert 0 < coverage["a"] <= 1


def test_a_run_with_a_half_filled_cache_is_bit_identical(tmp_path):
    """As after a kill between a step and its checkpoint."""
    whole = proxy(tmp_path / "whole", dtype=torch.float32, cache=open_cache(tmp_path / "one"))
    proxy(tmp_path / "cut", dtype=torch.float32, steps=7, cache=open_cache(tmp_path / "two"))
    again = proxy(tmp_path / "again", dtype=torch.float32, cache=open_cache(tmp_path / "two"))
    assert torch.equal(parameters(again.model), parameters(whole.model))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_losses_of_the_reference_are_those_that_are_stored_from_the_first_use(tmp_path, dtype):
    """Also those of rows that were computed a moment ago, and of rows beside them that were there already."""
    cache = open_cache(tmp_path, dtype)
    objective = ExcessLoss(tiny_model(2, torch.float32), names=STORE.names, cache=cache)
    schedule = MIXTURE.schedule(STORE, STORE.names, weights=dict.fromkeys(STORE.names, 1), global_batch_size=8, seed=3)
    batch = next(iter(MIXTURE.loader(STORE, schedule, micro_batch_size=8)))
    ids, rows = batch["domain_ids"].numpy(), batch["rows"].numpy()
    stored = np.full((1, SEQUENCE_LENGTH - 1), 0.125)  # of the first row, from before: not what the reference gives
    cache.write(ids[:1], rows[:1], stored)
    found = objective._reference_nats(batch)
    assert found.dtype == torch.float32
    computed = objective_module.token_nats(objective.reference, batch).numpy()
    expected = np.concatenate([stored, computed[1:]]).astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(found.numpy(), expected)
    np.testing.assert_array_equal(cache.read(ids, rows).nats, expected)
    assert (expected != computed).any()


def test_float16_is_close_and_uses_what_is_stored_from_the_first_step(tmp_path):
    first = proxy(tmp_path / "first", dtype=torch.float32, cache=open_cache(tmp_path / "cache", "float16"))
    second = proxy(tmp_path / "second", dtype=torch.float32, cache=open_cache(tmp_path / "cache", "float16"))
    plain = proxy(tmp_path / "plain", dtype=torch.float32)
    assert torch.equal(parameters(second.model), parameters(first.model))
    np.testing.assert_allclose(first.objective.dro.average_weights, plain.objective.dro.average_weights, rtol=1e-3)
    assert not torch.equal(parameters(plain.model), parameters(first.model))


def test_the_reference_computes_in_the_precision_of_the_proxy(tmp_path, monkeypatch):
    seen = []
    real = objective_module.token_nats

    def watching(model, batch):
        handle = model.model.layers[0].mlp.down_proj.register_forward_hook(lambda *a: seen.append(a[2].dtype))
        try:
            return real(model, batch)
        finally:
            handle.remove()

    monkeypatch.setattr(objective_module, "token_nats", watching)
    proxy(tmp_path, dtype=torch.float32, steps=1, bf16=True)
    assert seen == [torch.bfloat16]
