"""When cut-cross-entropy is chosen. The kernels need a GPU; here a stand-in with their signature runs on the CPU."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch.nn import functional

from doremi.models import fused_nats
from doremi.models.linear_nats import linear_nats
from doremi.models.output_head import OutputHead

CPU = torch.device("cpu")


@pytest.fixture
def install(monkeypatch):
    """Puts a function in the place of `cut_cross_entropy.linear_cross_entropy`; None: the package is missing."""

    def as_kernel(function):
        module = ModuleType("cut_cross_entropy")
        if function is not None:
            module.linear_cross_entropy = function
        monkeypatch.setitem(sys.modules, "cut_cross_entropy", module if function is not None else None)
        monkeypatch.setattr(fused_nats, "_serves", lambda device: True)

    yield as_kernel
    for cached in (fused_nats._kernel, fused_nats._agrees):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def forget():
    for cached in (fused_nats._kernel, fused_nats._agrees):
        cached.cache_clear()


def kernel(e, c, targets, bias=None, softcap=None, reduction="mean", accum_c_fp32=False, impl="cce"):
    assert (reduction, impl) == ("none", "cce_exact")
    logits = functional.linear(e, c, bias).float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)


def test_chosen_when_installed_and_in_agreement(install):
    install(kernel)
    assert fused_nats.select(CPU, torch.bfloat16) is fused_nats._fused_nats
    assert fused_nats.select(CPU, torch.float32) is None


def test_not_chosen_when_missing(install):
    install(None)
    assert fused_nats.select(CPU, torch.bfloat16) is None


def test_not_chosen_on_a_cpu(install, monkeypatch):
    serves = fused_nats._serves
    install(kernel)
    monkeypatch.setattr(fused_nats, "_serves", serves)
    assert fused_nats.select(CPU, torch.bfloat16) is None


def test_not_chosen_in_a_version_that_sums_in_bfloat16(install):
    def of_2025_01(e, c, targets, ignore_index=-100, softcap=None, reduction="mean", shift=False, filter_eps="high"):
        raise AssertionError

    install(of_2025_01)
    assert fused_nats.select(CPU, torch.bfloat16) is None


def wrong_in_value(*args, accum_c_fp32=False, **kwargs):
    return kernel(*args, **kwargs) * 1.1


def wrong_in_gradient(*args, accum_c_fp32=False, **kwargs):
    nats = kernel(*args, **kwargs)
    return nats + nats.mean() - nats.mean().detach()  # as if the weights of tokens were not known


@pytest.mark.parametrize("wrong", [wrong_in_value, wrong_in_gradient])
def test_not_chosen_when_losses_or_gradients_differ(install, caplog, wrong):
    install(wrong)
    with torch.inference_mode():
        assert fused_nats.select(CPU, torch.bfloat16) is None
    assert "gives other losses or gradients on cpu; not used" in caplog.text


def test_the_choice_leaves_random_numbers_alone(install):
    install(kernel)
    before = torch.get_rng_state()
    fused_nats.select(CPU, torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("head", [OutputHead(), OutputHead(scale=0.5, softcap=3.0)], ids=str)
def test_scale_bias_and_soft_cap_reach_the_kernel(install, head):
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator).bfloat16().requires_grad_() for shape in ((2, 5, 8), (7, 8), (7,))
    )
    targets = torch.randint(7, (2, 5), generator=generator)
    own = linear_nats(hidden, weight, bias, targets, head=head)
    install(kernel)
    fused = linear_nats(hidden, weight, bias, targets, head=head)
    assert type(fused.grad_fn) is not type(own.grad_fn)
    torch.testing.assert_close(fused, own, rtol=0.03, atol=0.03)
    for found, expected in zip(
        *(torch.autograd.grad(n.sum(), (hidden, weight, bias)) for n in (fused, own)), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
