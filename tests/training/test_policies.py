"""Weights that move while a model trains: by hand over several steps, over any split, resumed, read ahead."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from doremi.errors import InputError, RunFailedError
from doremi.methods.group_dro import GroupDRO
from doremi.mixture import MixtureSchedule, MixtureSettings
from doremi.training.schedules import LearningRateSchedule
from doremi.training.signals import ExcessLoss, Objective
from doremi.training.trainer import DoReMiTrainer
from doremi.weights import DomainWeights
from tests.training.fakes import SEQUENCE_LENGTH, arguments, parameters, tiny_model
from tests.training.policies import STORE, FollowsLosses, MovesBoth, WeighsLosses, Weights, bench

ROWS = 9
SGD = {"optim": "sgd", "learning_rate": 1.0, "warmup_steps": 0, "max_grad_norm": 1e9, "save_strategy": "no"}
SPLITS = pytest.mark.parametrize("accumulation", [1, 3])


def objective(policy, **settings):
    return Objective(STORE.names, policy=policy, state=policy.init(bench()), **settings)


def make(folder, policy, *, accumulation=1, reading="on_demand", model=None, steps=6, **settings):
    options = {key: settings.pop(key) for key in ("sampling_weights", "on_update", "callbacks") if key in settings}
    return DoReMiTrainer(
        model or tiny_model(1),
        objective=objective(policy),
        corpus=STORE,
        args=arguments(folder, micro_batch=ROWS // accumulation, accumulation=accumulation, steps=steps, **settings),
        mixture=MixtureSettings(sequence_length=SEQUENCE_LENGTH, reading=reading),
        learning_rate_schedule=LearningRateSchedule("constant", 1.0),
        allow_absent_domains=True,
        **options,
    )


def schedule(weights):
    counts = {name: STORE.num_sequences(name, SEQUENCE_LENGTH) for name in STORE.names}
    return MixtureSchedule(counts, weights=weights, global_batch_size=ROWS, seed=3)


def nats_by_domain(model, batch):
    """The losses of the target tokens of each domain in a global batch."""
    tokens = torch.stack(
        [
            torch.from_numpy(STORE.rows(STORE.names[domain], [row], SEQUENCE_LENGTH)[0][0])
            for domain, row in zip(*batch, strict=True)
        ]
    )
    logits = model(input_ids=tokens).logits[:, :-1]
    nats = -torch.log_softmax(logits, -1).gather(2, tokens[:, 1:, None]).squeeze(2)
    return [nats[torch.from_numpy(batch.domain_ids) == d].flatten() for d in range(3)]


def descend(model, loss):
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= parameter.grad


# ---- by hand ----


@SPLITS
def test_sampling_weights_that_follow_the_losses_after_each_step(tmp_path, accumulation):
    """Plain training on batches that are drawn with (mean loss)^4 of the step before, uniformly at first."""
    trainer = make(tmp_path, FollowsLosses(), accumulation=accumulation, **SGD)
    trainer.train()
    model, drawn, weights = tiny_model(1), schedule(dict.fromkeys(STORE.names, 1)), np.full(3, 1 / 3)
    latest, moved = np.ones(3), []
    for _ in range(6):
        drawn.set_weights(dict(zip(STORE.names, weights.tolist(), strict=True)))
        nats = nats_by_domain(model, drawn.next_batch())
        descend(model, torch.cat(nats).mean())
        latest = np.array([float(n.mean().detach()) if len(n) else latest[d] for d, n in enumerate(nats)])
        weights = latest**4 / (latest**4).sum()
        moved.append(weights)
    torch.testing.assert_close(parameters(trainer.model), parameters(model), rtol=0, atol=1e-10)
    np.testing.assert_allclose(trainer.objective.state.weights, weights, rtol=1e-10)
    assert trainer.loader.delivered == drawn.delivered
    np.testing.assert_array_equal(trainer.objective.state.rows, list(drawn.delivered.values()))
    assert trainer.objective.state.steps == (1, 2, 3, 4, 5, 6)
    np.testing.assert_allclose(list(trainer.loader.schedule.weights.values()), weights, atol=1e-9)
    assert np.abs(np.diff(moved, axis=0)).max() > 0.02  # else nothing would have been seen to move


@SPLITS
@pytest.mark.parametrize("when", ["before", "after"])
def test_loss_weights_of_this_step_or_of_the_one_before(tmp_path, when, accumulation):
    policy = WeighsLosses()
    policy.when = when
    trainer = make(tmp_path, policy, accumulation=accumulation, steps=4, **SGD)
    trainer.train()
    model, drawn, alpha = tiny_model(1), schedule(dict.fromkeys(STORE.names, 1)), np.full(3, 1 / 3)
    for _ in range(4):
        nats = nats_by_domain(model, drawn.next_batch())
        means = torch.stack([n.mean() for n in nats])
        updated = (means.detach() ** 4 / (means.detach() ** 4).sum()).numpy()
        descend(model, torch.from_numpy(updated if when == "before" else alpha) @ means)
        alpha = updated
    torch.testing.assert_close(parameters(trainer.model), parameters(model), rtol=0, atol=1e-10)
    np.testing.assert_allclose(trainer.objective.state.weights, alpha, rtol=1e-10)


@pytest.mark.parametrize(("policy", "accumulation", "num_passes"), [
    (FollowsLosses, 1, 1), (FollowsLosses, 3, 3), (WeighsLosses, 1, 1), (WeighsLosses, 3, 6),
])  # fmt: skip
def test_only_what_is_seen_before_several_micro_batches_costs_a_pass(tmp_path, policy, accumulation, num_passes):
    model, passes = tiny_model(1), []
    trainer = make(tmp_path, policy(), accumulation=accumulation, model=model, steps=1, **SGD)
    model.get_input_embeddings().register_forward_hook(lambda *_: passes.append(1))
    trainer.train()
    assert len(passes) == num_passes


def test_measuring_in_bfloat16_leaves_every_parameter_its_gradient(tmp_path):
    """Autocast's copies of the parameters that measuring makes, without a graph, must not serve training."""
    trained = []
    for accumulation in (1, 3):
        model = tiny_model(1, torch.float32)
        make(
            tmp_path / str(accumulation),
            WeighsLosses(),
            accumulation=accumulation,
            model=model,
            steps=1,
            bf16=True,
            **SGD,
        ).train()
        trained.append(parameters(model))
    start = parameters(tiny_model(1, torch.float32))
    assert (trained[0] - start).abs().max() > 0.01
    torch.testing.assert_close(trained[1], trained[0], rtol=0, atol=0.01 * float((trained[0] - start).abs().max()))


@SPLITS
def test_where_sampling_moves_too_the_loss_is_divided_by_the_chance_that_the_batch_was_drawn_with(
    tmp_path, accumulation
):
    """A domain of share s is in a batch of 9 rows with p = min(9 s, 1), with the s of that very batch."""
    found, drawn_with, weights = [], [], DomainWeights({"a": 0.9, "b": 0.05, "c": 0.05})

    def note(step, objective):
        state, schedule = objective.state, trainer.loader.schedule
        per_token = objective.token_weights(torch.arange(3)).numpy()
        drawn_with.append(np.array(list(schedule.weights.values())))
        found.append((per_token, state.weights, trainer.loader.row_counts))

    class Skewed(MovesBoth):
        def sampling_weights(self, state):
            return np.array([1 - 0.02 * len(state.steps) - 0.05, 0.02 * len(state.steps), 0.05])

    trainer = make(tmp_path, Skewed(), accumulation=accumulation, sampling_weights=weights, on_update=note, **SGD)
    trainer.train()
    for step, ((per_token, alpha, rows), s) in enumerate(zip(found, drawn_with, strict=True)):
        np.testing.assert_allclose(s, [1 - 0.02 * step - 0.05, 0.02 * step, 0.05], atol=1e-9)
        present = rows > 0
        expected = np.where(present, alpha / np.minimum(9 * np.maximum(s, 1e-9), 1) / (11 * np.maximum(rows, 1)), 0)
        np.testing.assert_allclose(per_token, expected, rtol=1e-6)
    assert (np.array([rows for _, _, rows in found])[:, 1] > 0).sum() in range(
        1, 6
    )  # present at times, absent at times


# ---- resumed ----


class Killed(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise ConnectionAbortedError


@pytest.mark.parametrize("reading", ["on_demand", "ahead"])
@pytest.mark.parametrize(("policy", "accumulation"), [(FollowsLosses, 1), (MovesBoth, 3)])
def test_a_killed_run_goes_on_with_the_very_same_numbers(tmp_path, policy, accumulation, reading):
    settings = {"accumulation": accumulation, "reading": reading, "steps": 7, "save_steps": 3}
    whole = make(tmp_path / "whole", policy(), **settings)
    whole.train()
    with pytest.raises(ConnectionAbortedError):
        make(tmp_path / "cut", policy(), callbacks=[Killed()], **settings).train()
    resumed = make(tmp_path / "cut", policy(), **settings)
    resumed.train(resume_from_checkpoint=True)
    assert torch.equal(parameters(resumed.model), parameters(whole.model))
    assert resumed.objective.state_dict() == whole.objective.state_dict()
    assert resumed.objective.state.steps == tuple(range(1, 8))
    assert resumed.loader.state_dict() == whole.loader.state_dict()
    np.testing.assert_array_equal(resumed.objective._presence, whole.objective._presence)
    assert sum(resumed.loader.delivered.values()) == 7 * ROWS


def test_reading_ahead_changes_nothing(tmp_path):
    one, other = (
        make(tmp_path / reading, FollowsLosses(), reading=reading, **SGD) for reading in ("on_demand", "ahead")
    )
    one.train()
    other.train()
    assert torch.equal(parameters(one.model), parameters(other.model))
    assert one.loader.state_dict() == other.loader.state_dict()


# ---- what is logged, and what is decided by what a policy sees ----


def test_the_weights_that_move_are_logged(tmp_path):
    trainer = make(tmp_path, FollowsLosses(), steps=5)
    trainer.train()
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    np.testing.assert_array_equal([entry[f"sampling_weights/{n}"] for n in "abc"], trainer.objective.state.weights)
    assert "loss_weights/a" not in entry


@pytest.mark.parametrize(("policy", "is_off"), [(FollowsLosses, False), (WeighsLosses, True)])
def test_noise_stays_where_no_loss_is_compared(tmp_path, policy, is_off):
    model = tiny_model(1, attention_dropout=0.3)
    trainer = make(tmp_path, policy(), model=model, neftune_noise_alpha=5.0)
    assert model.config.attention_dropout == (0 if is_off else 0.3)
    assert trainer.args.neftune_noise_alpha == (None if is_off else 5.0)


def test_where_the_policy_weighs_the_loss_the_batch_holds_every_domain(tmp_path):
    def build(policy):
        return DoReMiTrainer(
            tiny_model(1),
            objective=objective(policy),
            corpus=STORE,
            args=arguments(tmp_path, micro_batch=2),
            mixture=MixtureSettings(sequence_length=SEQUENCE_LENGTH),
        )

    with pytest.raises(InputError, match="global batch has 2 rows for 3 domains"):
        build(WeighsLosses())
    build(FollowsLosses())


@pytest.mark.parametrize("sees", ["held_out", "sketches"])
def test_what_training_cannot_compute_yet_is_refused(sees):
    policy = FollowsLosses()
    policy.sees = sees
    with pytest.raises(InputError, match=f"FollowsLosses sees '{sees}', which training does not compute yet"):
        objective(policy)


@pytest.mark.parametrize("target", ["excess", "easiest"])
def test_a_missing_reference_is_refused(target):
    with pytest.raises(InputError, match=r"GroupDRO sees '(excess|reference)', which needs a reference"):
        objective(GroupDRO(target=target))


def test_sampling_weights_that_are_not_finite_stop_the_run_before_the_optimizer_step(tmp_path):
    class Broken(FollowsLosses):
        def update(self, state, seen):
            new = super().update(state, seen)
            return dataclasses.replace(new, weights=new.weights * (np.nan if seen.step == 3 else 1))

    trainer = make(tmp_path, Broken(), **SGD)
    with pytest.raises(RunFailedError, match=r"step 3: the policy's sampling weights are \{'a': nan"):
        trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.parametrize("policy", [FollowsLosses, WeighsLosses])
@SPLITS
def test_a_policy_never_sees_a_loss_that_is_not_finite(tmp_path, monkeypatch, policy, accumulation):
    trainer = make(tmp_path, policy(), accumulation=accumulation, **SGD)
    real = trainer.objective.sums

    def sums(nats, batch):
        found = real(nats, batch)
        fault = torch.tensor([0, np.inf, 0]) if trainer.state.global_step == 2 else 0
        return found._replace(sums=found.sums + fault)

    monkeypatch.setattr(trainer.objective, "sums", sums)
    with pytest.raises(RunFailedError, match="step 3: loss sum of domain 'b' is inf; stopped before the optimizer"):
        trainer.train()
    assert trainer.state.global_step == 2


# ---- Group DRO as a policy like any other ----


@pytest.mark.parametrize(
    ("target", "weights_update"), [("excess", "exact"), ("hardest", "exact"), ("easiest", "delayed")]
)
def test_group_dro_by_the_protocol_is_excess_loss(tmp_path, target, weights_update):
    settings = {"step_size": 0.5, "smoothing": 0.01, "target": target, "weights_update": weights_update}
    policy, trained = GroupDRO(**settings), []
    for folder, each in [
        ("policy", objective(policy, reference=tiny_model(2))),
        ("convenience", ExcessLoss(tiny_model(2), names=STORE.names, **settings)),
    ]:
        trainer = DoReMiTrainer(
            tiny_model(1),
            objective=each,
            corpus=STORE,
            args=arguments(tmp_path / folder, micro_batch=3, accumulation=3, steps=2, save_strategy="no"),
            mixture=MixtureSettings(sequence_length=SEQUENCE_LENGTH),
        )
        trainer.train()
        trained.append((parameters(trainer.model), each.state_dict()))
    assert torch.equal(trained[0][0], trained[1][0])
    assert trained[0][1] == trained[1][1]
    assert policy.when == {"exact": "before", "delayed": "after"}[weights_update]
    assert policy.sees == {"excess": "excess", "hardest": "losses", "easiest": "reference"}[target]


def test_the_state_of_a_policy_of_other_domains_is_refused():
    own, other = objective(FollowsLosses()), FollowsLosses().init(bench(("a", "b")))
    content = Objective(("a", "b"), policy=FollowsLosses(), state=other).state_dict()
    with pytest.raises(InputError, match=r"is for domains \('a', 'b'\), this run has \('a', 'b', 'c'\)"):
        own.load_state_dict(content)
    swapped = dataclasses.replace(own.state, names=("b", "a", "c"))
    with pytest.raises(InputError, match=r"is for domains \('b', 'a', 'c'\), this run has \('a', 'b', 'c'\)"):
        own.load_state_dict(Objective("bac", policy=FollowsLosses(), state=swapped).state_dict())
    assert isinstance(own.state, Weights)
