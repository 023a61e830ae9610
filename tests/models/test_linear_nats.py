"""Losses in chunks against PyTorch's own cross-entropy of all the logits, in value and in gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from doremi.models import linear_nats as module
from doremi.models.linear_nats import linear_nats
from doremi.models.output_head import OutputHead

NUM_TOKENS, DIMENSION, VOCAB_SIZE = 13, 6, 11
HEADS = [OutputHead(), OutputHead(scale=2.5), OutputHead(softcap=1.5), OutputHead(scale=0.5, softcap=2.0)]
ROWS = [1, 3, 5, NUM_TOKENS, 100]  # 3 and 5 do not divide 13


def problem(*, dtype=torch.float64, num_tokens=NUM_TOKENS):
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()
        for shape in ((num_tokens, DIMENSION), (VOCAB_SIZE, DIMENSION), (VOCAB_SIZE,))
    )
    targets = torch.randint(VOCAB_SIZE, (num_tokens,), generator=generator)
    return hidden, weight, bias, targets


def token_weights(num_tokens=NUM_TOKENS):
    return torch.rand(num_tokens, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def all_logits_nats(hidden, weight, bias, targets, *, head):
    logits = head.scale * functional.linear(hidden, weight, bias)
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(logits, targets, reduction="none")


def value_and_gradients(function, hidden, weight, bias, targets, *, head):
    nats = function(hidden, weight, bias, targets, head=head)
    inputs = [tensor for tensor in (hidden, weight, bias) if tensor is not None and tensor.requires_grad]
    return [nats.detach(), *torch.autograd.grad((token_weights(len(targets)) * nats).sum(), inputs)]


@pytest.fixture(params=["kept", "recomputed"])
def memory(request, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", 1 << 30 if request.param == "kept" else 0)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_nats_and_gradients_are_those_of_all_the_logits(monkeypatch, memory, rows, head, biased):
    monkeypatch.setitem(module.CHUNK_ROWS, "cpu", rows)
    hidden, weight, bias, targets = problem()
    bias = bias if biased else None
    expected = value_and_gradients(all_logits_nats, hidden, weight, bias, targets, head=head)
    found = value_and_gradients(linear_nats, hidden, weight, bias, targets, head=head)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_gradcheck(monkeypatch, memory, head):
    monkeypatch.setitem(module.CHUNK_ROWS, "cpu", 5)
    hidden, weight, bias, targets = problem()
    assert torch.autograd.gradcheck(lambda *inputs: linear_nats(*inputs, targets, head=head), (hidden, weight, bias))


def test_a_chunk_is_as_large_as_its_memory_allows_and_all_are_of_one_size(monkeypatch):
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", 5 * VOCAB_SIZE * 8)
    hidden, weight, bias, _ = problem()
    chunks = module._Chunks(hidden, weight, bias, OutputHead())
    assert [rows.stop - rows.start for rows in chunks] == [5, 5, 3]
    assert chunks.num_bytes == NUM_TOKENS * VOCAB_SIZE * 8
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", 12 * VOCAB_SIZE * 8)
    assert [rows.stop - rows.start for rows in module._Chunks(hidden, weight, bias, OutputHead())] == [7, 6]
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", 1)
    assert len(list(module._Chunks(hidden, weight, bias, OutputHead()))) == NUM_TOKENS


def test_any_leading_shape():
    hidden, weight, bias, targets = problem(num_tokens=12)
    flat = linear_nats(hidden, weight, bias, targets, head=OutputHead())
    shaped = linear_nats(hidden.view(3, 4, -1), weight, bias, targets.view(3, 4), head=OutputHead())
    assert torch.equal(shaped, flat.view(3, 4))
    (gradient,) = torch.autograd.grad(shaped.sum(), hidden)
    torch.testing.assert_close(gradient, torch.autograd.grad(flat.sum(), hidden)[0], rtol=0, atol=0)


def test_no_targets_at_all():
    hidden, weight, bias, targets = problem(num_tokens=0)
    nats, *gradients = value_and_gradients(linear_nats, hidden, weight, bias, targets, head=OutputHead())
    assert nats.shape == (0,)
    assert [gradient.abs().sum() for gradient in gradients] == [0, 0, 0]


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(memory, frozen):
    inputs = problem()
    expected = value_and_gradients(all_logits_nats, *inputs, head=OutputHead())
    inputs[frozen].requires_grad_(False)
    del expected[1 + frozen]
    found = value_and_gradients(linear_nats, *inputs, head=OutputHead())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradient(mode):
    *inputs, targets = problem()
    with mode():
        nats = linear_nats(*inputs, targets, head=OutputHead())
    assert not nats.requires_grad
    assert torch.equal(nats, linear_nats(*inputs, targets, head=OutputHead()))


def test_a_graph_may_be_used_twice(memory):
    *inputs, targets = problem()
    loss = (token_weights() * linear_nats(*inputs, targets, head=OutputHead())).sum()
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(loss, inputs)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_float32_losses_of_low_precision_products(monkeypatch, memory, dtype):
    """Losses as exact as those of a linear layer under autocast; gradients of float32 parameters in float32."""
    monkeypatch.setitem(module.CHUNK_ROWS, "cpu", 5)
    *inputs, targets = problem(dtype=torch.float32)
    with torch.autocast("cpu", dtype):
        found = value_and_gradients(linear_nats, *inputs, targets, head=OutputHead(scale=2.0))
        expected = value_and_gradients(all_logits_nats, *inputs, targets, head=OutputHead(scale=2.0))
    assert [tensor.dtype for tensor in found] == [torch.float32] * 4
    exact = value_and_gradients(all_logits_nats, *inputs, targets, head=OutputHead(scale=2.0))
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=4 * rounding, atol=8 * rounding)
    assert not torch.equal(found[0], exact[0])  # the products were of low precision indeed


def test_low_precision_parameters_get_low_precision_gradients_summed_in_float32(monkeypatch):
    """4,096 tokens of gradient 2^-9 each, one per chunk: bfloat16 sums would stall at 0.5 of 8."""
    monkeypatch.setitem(module.CHUNK_ROWS, "cpu", 1)
    hidden = torch.ones(4096, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    nats = linear_nats(hidden, weight, None, torch.zeros(4096, dtype=torch.int64), head=OutputHead())
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, torch.full((4096,), math.log(2)))
    (nats.sum() / 256).backward()
    assert weight.grad.dtype == torch.bfloat16
    assert weight.grad.flatten().tolist() == [-8.0, 8.0]


def test_large_logits_lose_nothing():
    """The loss of a sure token is not the difference of two large numbers, which would be off by 0.001."""
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[10_000.0], [9_990.0]])
    nats = linear_nats(hidden, weight, None, torch.tensor([0]), head=OutputHead())
    assert nats.item() == pytest.approx(math.log1p(math.exp(-10)), rel=1e-3)
