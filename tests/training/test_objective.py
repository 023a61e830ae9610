"""The objectives against a direct, token-by-token evaluation of the method's formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from doremi.errors import InputError
from doremi.methods import group_dro
from doremi.models.token_loss import token_nats
from doremi.training.signals import DomainSums, ExcessLoss, TokenMean, presence_probabilities
from tests.training.fakes import VOCAB_SIZE, tiny_model

NAMES = ("a", "b", "c")


def padded_batch(seed=0):
    """Five rows of 9 tokens in domains b, a, b, c, a: unequal counts, padding on the right, a masked middle."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, VOCAB_SIZE, (5, 9), generator=generator)
    labels = tokens.clone()
    mask = torch.ones_like(tokens)
    labels[0, 6:], mask[0, 6:] = -100, 0
    labels[2, 3:], mask[2, 3:] = -100, 0
    labels[4, 2:5] = -100
    return {
        "input_ids": tokens,
        "labels": labels,
        "attention_mask": mask,
        "domain_ids": torch.tensor([1, 0, 1, 2, 0]),
    }


def direct_nats(model, batch):
    """{(row, position): nats} of every target, one log-softmax at a time."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return {
        (row, t): -torch.log_softmax(logits[row, t - 1], dim=-1)[batch["labels"][row, t]]
        for row in range(5)
        for t in range(1, 9)
        if batch["labels"][row, t] != -100
    }


def test_token_nats_are_the_log_likelihoods_of_the_next_tokens():
    model, batch = tiny_model(), padded_batch()
    nats = token_nats(model, batch).detach()
    direct = direct_nats(model, batch)
    for row in range(5):
        for t in range(1, 9):
            expected = float(direct.get((row, t), torch.tensor(0.0)).detach())
            assert float(nats[row, t - 1]) == pytest.approx(expected, abs=1e-12)
    assert nats.dtype == torch.float64
    assert token_nats(tiny_model(dtype=torch.bfloat16), batch).dtype == torch.float32


def test_proxy_loss_and_gradient_equal_the_formula():
    """loss = Σ_i α_i · mean over the targets j of domain i of ℓ_j, α updated from the same batch's clipped excess."""
    proxy, reference, batch = tiny_model(1), tiny_model(2), padded_batch()
    objective = ExcessLoss(reference, names=NAMES, step_size=0.7, smoothing=0.01)
    nats = token_nats(proxy, batch)
    objective.update(objective.sums(nats.detach(), batch))
    loss = (objective.token_weights(batch["domain_ids"]) * nats.sum(dim=1)).sum()
    gradient = torch.autograd.grad(loss, list(proxy.parameters()))

    own, other = direct_nats(proxy, batch), direct_nats(reference, batch)
    domain_of = batch["domain_ids"].tolist()
    by_domain = {d: [key for key in own if domain_of[key[0]] == d] for d in range(3)}
    excess = [
        math.fsum(max(float(own[j].detach() - other[j].detach()), 0.0) for j in by_domain[d]) / len(by_domain[d])
        for d in range(3)
    ]
    unnormalised = [math.exp(0.7 * value) / 3 for value in excess]
    alpha = [0.99 * u / math.fsum(unnormalised) + 0.01 / 3 for u in unnormalised]
    direct_loss = sum(alpha[d] * torch.stack([own[j] for j in by_domain[d]]).mean() for d in range(3))
    direct_gradient = torch.autograd.grad(direct_loss, list(proxy.parameters()))

    np.testing.assert_allclose(objective.dro.weights, alpha, rtol=1e-12)
    assert float(loss.detach()) == pytest.approx(float(direct_loss.detach()), rel=1e-12)
    for ours, direct in zip(gradient, direct_gradient, strict=True):
        torch.testing.assert_close(ours, direct, rtol=1e-10, atol=1e-13)


def test_the_reference_is_frozen_and_in_eval_mode():
    reference = tiny_model(2).train()
    objective = ExcessLoss(reference, names=NAMES)
    assert not objective.reference.training
    assert not any(parameter.requires_grad for parameter in objective.reference.parameters())


def test_plain_training_is_the_mean_over_all_targets():
    model, batch = tiny_model(), padded_batch()
    objective = TokenMean(NAMES)
    objective.update(objective.sums(None, batch))
    nats = token_nats(model, batch)
    loss = float((objective.token_weights(batch["domain_ids"]) * nats.sum(dim=1)).sum().detach())
    direct = [float(value.detach()) for value in direct_nats(model, batch).values()]
    assert loss == pytest.approx(math.fsum(direct) / len(direct), rel=1e-12)


def test_absent_and_fully_masked_domains_give_no_nan_and_no_weight():
    batch = padded_batch()
    batch["labels"][3] = -100  # the only row of domain c
    objective = ExcessLoss(tiny_model(2), names=(*NAMES, "never"))
    nats = token_nats(tiny_model(1), batch)
    objective.update(objective.sums(nats.detach(), batch))
    assert np.isfinite(objective.dro.weights).all()
    loss = (objective.token_weights(batch["domain_ids"]) * nats.sum(dim=1)).sum()
    assert torch.isfinite(loss)
    np.testing.assert_allclose(objective.dro.excess_losses[2:], objective.dro.excess_losses[:2].mean())


def test_presence_probabilities():
    shares = np.array([0.25, 0.75, 0.0, 1.0])
    iid = presence_probabilities(shares, global_batch_size=2, sampling="iid")
    np.testing.assert_allclose(iid, [1 - 0.75**2, 1 - 0.25**2, 0.0, 1.0])
    balanced = presence_probabilities(shares, global_batch_size=2, sampling="balanced")
    np.testing.assert_allclose(balanced, [0.5, 1.0, 0.0, 1.0])


def test_gradient_weight_of_a_sometimes_absent_domain_is_unbiased():
    """Over many draws, the mean of w · N equals α: dividing by the probability of presence makes up for absences."""
    objective = ExcessLoss(tiny_model(2), names=("often", "rare"), smoothing=0.0, step_size=1e-9)
    probabilities = presence_probabilities(np.array([0.9, 0.1]), global_batch_size=4, sampling="iid")
    objective.expect_absences(probabilities)
    rng, delivered, rounds = np.random.default_rng(0), np.zeros(2), 4000
    for _ in range(rounds):
        counts = np.bincount(rng.choice(2, size=4, p=[0.9, 0.1]), minlength=2)
        objective.update(DomainSums(torch.zeros(2), torch.from_numpy(counts * 11.0)))
        weights = objective.token_weights(torch.tensor([0, 1])).numpy()
        delivered += weights * counts * 11
    np.testing.assert_allclose(delivered / rounds, [0.5, 0.5], rtol=0.05)


def test_saved_state_of_other_domains_is_refused():
    objective = ExcessLoss(tiny_model(2), names=NAMES)
    with pytest.raises(InputError, match=r"is for domains \('x', 'y'\), this run has \('a', 'b', 'c'\)"):
        objective.load_state_dict(group_dro.init(["x", "y"]).to_dict())


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("excess", lambda own, reference: (own - reference).clamp(min=0)),
        ("hardest", lambda own, reference: own),
        ("easiest", lambda own, reference: -reference),
    ],
)
def test_the_papers_ablations_put_another_loss_in_place_of_the_excess(target, expected):
    """Table 7. α follows the domain means of it, whatever their sign."""
    model, reference = tiny_model(1), tiny_model(2)
    ids = torch.randint(1, VOCAB_SIZE, (4, 12), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "labels": ids, "domain_ids": torch.tensor([0, 1, 1, 0])}
    own, theirs = token_nats(model, batch).detach(), token_nats(reference, batch).detach()
    objective = ExcessLoss(reference, names=("a", "b"), target=target)
    objective.update(objective.sums(own, batch))
    means = torch.stack([expected(own, theirs)[batch["domain_ids"] == d].mean() for d in range(2)])
    np.testing.assert_allclose(objective.dro.excess_losses, means.numpy(), rtol=1e-12)
    np.testing.assert_allclose(objective.dro.weights, (0.999 * torch.softmax(means, 0) + 0.0005).numpy(), rtol=1e-12)


def test_an_unknown_target_is_refused():
    with pytest.raises(InputError, match="target is 'hard'; it must be one of 'excess', 'hardest', 'easiest'"):
        ExcessLoss(tiny_model(2), names=("a", "b"), target="hard")
