"""The trainer: splitting a batch changes nothing, resuming changes nothing, and what must stop it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from doremi.errors import InputError
from doremi.mixture import MixtureSettings
from doremi.training import checkpoints
from doremi.training.schedules import LearningRateSchedule
from doremi.training.signals import ExcessLoss, TokenMean
from doremi.training.trainer import DoReMiTrainer
from doremi.weights import DomainWeights
from tests.training.fakes import SEQUENCE_LENGTH, InMemoryStore, arguments, parameters, tiny_model

STORE = InMemoryStore()
MIXTURE = MixtureSettings(sequence_length=SEQUENCE_LENGTH)


def train(folder, *, proxy=True, dtype=torch.float64, resume=None, store=STORE, decay="cosine", **settings):
    model = tiny_model(1, dtype)
    objective = ExcessLoss(tiny_model(2, dtype), names=store.names) if proxy else TokenMean(store.names)
    trainer = DoReMiTrainer(
        model,
        objective=objective,
        corpus=store,
        args=arguments(folder, **settings),
        mixture=MIXTURE,
        learning_rate_schedule=LearningRateSchedule(decay, 0.05),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("proxy", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), pytest.param(torch.float32, 1e-4, marks=pytest.mark.slow)]
)
def test_splitting_the_global_batch_changes_nothing(tmp_path, proxy, dtype, tolerance):
    """One forward of 8 rows, two of 4, four of 2: the same α, the same parameters after 20 steps."""
    whole = train(tmp_path / "1", proxy=proxy, dtype=dtype, micro_batch=8, accumulation=1)
    start = parameters(tiny_model(1, dtype))
    assert (parameters(whole.model) - start).abs().max() > 0.01
    for accumulation in (2, 4):
        split = train(
            tmp_path / str(accumulation),
            proxy=proxy,
            dtype=dtype,
            micro_batch=8 // accumulation,
            accumulation=accumulation,
        )
        torch.testing.assert_close(parameters(split.model), parameters(whole.model), rtol=0, atol=tolerance)
        if proxy:
            np.testing.assert_allclose(split.objective.dro.weights, whole.objective.dro.weights, rtol=0, atol=tolerance)


def test_one_step_of_the_proxy_is_the_formula_applied_to_the_batch_of_the_schedule(tmp_path):
    """SGD with rate 1 and no clipping: the parameters move by minus the gradient of Eq. 1 with α_1."""
    trainer = train(
        tmp_path, steps=1, decay="constant", optim="sgd", learning_rate=1.0, warmup_steps=0, max_grad_norm=1e9
    )
    batch = next(iter(make_loader()))
    model, reference = tiny_model(1), tiny_model(2)

    def nats(scored):
        logits = scored(input_ids=batch["input_ids"]).logits[:, :-1]
        return -torch.log_softmax(logits, -1).gather(2, batch["input_ids"][:, 1:, None]).squeeze(2)

    own, excess = nats(model), (nats(model) - nats(reference)).clamp(min=0)
    members = [batch["domain_ids"] == d for d in range(3)]
    scores = torch.stack([excess[m].mean() for m in members]).detach()
    alpha = 0.999 * torch.softmax(scores, 0) + 0.001 / 3
    sum(alpha[d] * own[members[d]].mean() for d in range(3)).backward()
    expected = torch.cat([(p - p.grad).flatten() for p in model.parameters()])
    torch.testing.assert_close(parameters(trainer.model), expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(trainer.objective.dro.weights, alpha.numpy(), rtol=1e-12)


def test_each_step_has_the_learning_rate_of_its_number(tmp_path):
    """Step 1 is the first of the warm-up, and the last one has the end value."""
    rates = []

    class Rates(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            rates.append(optimizer.param_groups[0]["lr"])

    DoReMiTrainer(
        tiny_model(),
        objective=TokenMean(STORE.names),
        corpus=STORE,
        args=arguments(tmp_path, steps=4, warmup_steps=2, learning_rate=0.4),
        mixture=MIXTURE,
        learning_rate_schedule=LearningRateSchedule("linear", 0.1),
        callbacks=[Rates()],
    ).train()
    assert rates == pytest.approx([0.2, 0.4, 0.22, 0.04], rel=1e-12)


def make_loader():
    from doremi.mixture import MixtureLoader, MixtureSchedule

    counts = {name: STORE.num_sequences(name, SEQUENCE_LENGTH) for name in STORE.names}
    schedule = MixtureSchedule(counts, weights=dict.fromkeys(STORE.names, 1.0), global_batch_size=8, seed=3)
    return MixtureLoader(STORE, schedule, sequence_length=SEQUENCE_LENGTH, micro_batch_size=8)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_resuming_is_bit_identical(tmp_path, accumulation):
    settings = {"micro_batch": 8 // accumulation, "accumulation": accumulation, "steps": 15, "save_total_limit": 10}
    whole = train(tmp_path / "whole", **settings)
    train(tmp_path / "cut", **settings)
    for step in (10, 15):
        checkpoints.discard(checkpoints.path(tmp_path / "cut", step))
    resumed = train(tmp_path / "cut", resume=True, **settings)
    assert torch.equal(parameters(resumed.model), parameters(whole.model))
    np.testing.assert_array_equal(resumed.objective.dro.average_weights, whole.objective.dro.average_weights)
    assert resumed.loader.state_dict() == whole.loader.state_dict()
    assert [e["step"] for e in resumed.state.log_history] == [e["step"] for e in whole.state.log_history]


def test_resuming_a_run_that_is_over_takes_no_further_step(tmp_path):
    whole = train(tmp_path, steps=5)
    again = train(tmp_path, steps=5, resume=True)
    assert torch.equal(parameters(again.model), parameters(whole.model))
    assert again.state.global_step == 5
    assert again.objective.dro.num_updates == 5


def test_dropout_is_switched_off_in_the_proxy_with_a_notice(tmp_path, caplog):
    objective = ExcessLoss(tiny_model(2), names=STORE.names)
    trainer = DoReMiTrainer(
        tiny_model(1, attention_dropout=0.3),
        objective=objective,
        corpus=STORE,
        args=arguments(tmp_path),
        mixture=MIXTURE,
    )
    assert "dropout set to 0 in the proxy" in caplog.text
    assert trainer.model.config.attention_dropout == 0
    assert all(getattr(module, "attention_dropout", 0) == 0 for module in trainer.model.modules())


def test_a_proxy_batch_smaller_than_the_number_of_domains_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"global batch has 2 rows for 3 domains.*at least 3"):
        train(tmp_path, micro_batch=2)


def test_plain_training_samples_by_tokens_unless_told_otherwise(tmp_path):
    trainer = train(tmp_path, proxy=False, steps=20)
    drawn = trainer.loader.delivered
    total = sum(drawn.values())
    for name, rows in zip("abc", (40, 25, 17), strict=True):
        assert abs(drawn[name] - total * rows / 82) < 1.5
    weighted = DoReMiTrainer(
        tiny_model(),
        objective=TokenMean(STORE.names),
        corpus=STORE,
        args=arguments(tmp_path / "w", steps=5),
        sampling_weights=DomainWeights({"a": 1, "b": 1}),
        mixture=MIXTURE,
    )
    weighted.train()
    assert weighted.loader.delivered == {"a": 20, "b": 20, "c": 0}


def test_the_log_has_weights_and_losses_of_every_domain(tmp_path):
    trainer = train(tmp_path, steps=10)
    entry = [e for e in trainer.state.log_history if "loss" in e][-1]
    alpha = [entry[f"dro_weights/{name}"] for name in "abc"]
    np.testing.assert_array_equal(alpha, trainer.objective.dro.weights)
    assert {f"{kind}/{name}" for kind in ("average_weights", "excess_losses", "train_nats") for name in "abc"} <= set(
        entry
    )
    assert entry["epoch"] == 1.0


def test_training_lowers_the_loss(tmp_path):
    trainer = train(tmp_path, proxy=False, steps=40, dtype=torch.float32)
    losses = [e["loss"] for e in trainer.state.log_history if "loss" in e]
    assert losses[-1] < losses[0] - 0.3


def test_autocast_does_not_hide_the_output_head(tmp_path, caplog):
    trainer = train(tmp_path, dtype=torch.float32, steps=2, bf16=True)
    assert "all the logits at once" not in caplog.text
    for model in (trainer.model, trainer.objective.reference):
        assert "forward" in vars(model.get_output_embeddings())  # which computes losses instead of logits
