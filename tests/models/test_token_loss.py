"""Token losses without all the logits against the model's own logits, for many architectures and ways to run them."""

from __future__ import annotations

import copy
import inspect
import json
import pickle

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from doremi.errors import InputError
from doremi.models import linear_nats, token_loss
from doremi.models.token_loss import install, target_nats, token_nats
from tests.training.architectures import ARCHITECTURES, VOCAB_SIZE, build

INPUTS = ("input_ids", "attention_mask", "position_ids")


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch):
    monkeypatch.setitem(linear_nats.CHUNK_ROWS, "cpu", 7)


@pytest.fixture
def no_full_logits(monkeypatch):
    def fail(logits, targets):
        raise AssertionError("losses were computed from all the logits")

    monkeypatch.setattr(token_loss, "_logits_nats", fail)


def batch(*, masked=True):
    """Four rows of 10 tokens; with ``masked`` padding on the right, a masked middle, and a row without targets."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, VOCAB_SIZE, (4, 10), generator=generator)
    labels, mask = tokens.clone(), torch.ones_like(tokens)
    if masked:
        labels[0, 6:], mask[0, 6:] = -100, 0
        labels[1, 3:5] = -100
        labels[3] = -100
    return {"input_ids": tokens, "labels": labels, "attention_mask": mask}


def full_logits_nats(model, batch):
    logits = model(**{key: batch[key] for key in INPUTS if key in batch}, use_cache=False).logits[:, :-1]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(logits.transpose(1, 2), batch["labels"][:, 1:], reduction="none")


def value_and_gradients(function, model, batch):
    """Nats, and for random token weights the gradient of every parameter."""
    model.zero_grad()
    nats = function(model, batch)
    token_weights = torch.rand(nats.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (token_weights * nats).sum().backward()
    return nats.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same(model, batch, *, rtol=1e-6, atol=1e-7):
    """float32 parts of a float64 model (norms, softmax) leave differences of 1e-7."""
    expected = value_and_gradients(full_logits_nats, model, batch)
    found = value_and_gradients(token_nats, model, batch)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    assert found[0].sum() > 1


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nats_and_gradients_are_those_of_the_models_logits(monkeypatch, no_full_logits, name, masked, kept):
    monkeypatch.setattr(linear_nats, "KEPT_BYTES", 1 << 20 if kept else 0)
    assert_same(build(name).eval(), batch(masked=masked))


@pytest.mark.parametrize("name", ["llama", "granite (divided)", "phi (bias)"])
def test_position_ids_are_used(no_full_logits, name):
    model = build(name).eval()
    reset = batch() | {"position_ids": torch.tensor([0, 1, 2, 0, 1, 2, 3, 4, 5, 6]).expand(4, 10)}
    assert not torch.allclose(token_nats(model, reset), token_nats(model, batch()))
    assert_same(model, reset)


def test_shorter_targets_are_those_of_the_first_positions(no_full_logits):
    model, tokens = build("llama"), batch()["input_ids"]
    nats = target_nats(model, {"input_ids": tokens}, tokens[:, 1:4])
    expected = full_logits_nats(model, {"input_ids": tokens, "labels": tokens})[:, :3]
    torch.testing.assert_close(nats, expected)


def test_a_batch_without_targets_has_losses_and_gradients_of_zero(no_full_logits):
    model = build("llama, tied")
    nats, gradients = value_and_gradients(token_nats, model, batch() | {"labels": torch.full((4, 10), -100)})
    assert nats.tolist() == [[0.0] * 9] * 4
    assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_are_float32_in_any_lower_precision(no_full_logits, dtype):
    model = build("llama", dtype=dtype)
    assert token_nats(model, batch()).dtype == torch.float32
    rounding = torch.finfo(dtype).eps
    assert_same(model, batch(), rtol=40 * rounding, atol=10 * rounding)


def test_under_autocast_gradients_are_as_close_to_the_exact_ones_as_those_of_full_logits(no_full_logits):
    model = build("gpt2 (tied)", dtype=torch.float32).eval()
    exact_nats, exact = value_and_gradients(full_logits_nats, model, batch())
    with torch.autocast("cpu", torch.bfloat16):
        full_nats, full = value_and_gradients(full_logits_nats, model, batch())
        nats, gradients = value_and_gradients(token_nats, model, batch())
    assert nats.dtype == torch.float32
    assert (nats - exact_nats).norm() < 1.5 * (full_nats - exact_nats).norm()
    error, full_error = (sum(float((g[name] - exact[name]).norm()) for name in exact) for g in (gradients, full))
    assert 0 < error < 1.5 * full_error


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_first_use_without_gradient_serves_later_training_too(no_full_logits, mode):
    model = build("gemma2 (tied, soft cap)")
    with mode():
        nats = token_nats(model, batch())
    assert not nats.requires_grad
    assert_same(model, batch())
    torch.testing.assert_close(nats, token_nats(model, batch()).detach(), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")
def test_gradient_checkpointing(no_full_logits):
    model = build("llama").train()
    expected = value_and_gradients(full_logits_nats, model, batch())
    model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(value_and_gradients(token_nats, model, batch()), expected, rtol=1e-6, atol=1e-7)


def test_a_compiled_model_compiles_its_backbone_and_leaves_the_losses_alone(no_full_logits):
    model = build("llama").eval()
    expected = value_and_gradients(full_logits_nats, model, batch())
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=backend)
    nats, gradients = value_and_gradients(token_nats, compiled, batch())
    gradients = {name.removeprefix("_orig_mod."): gradient for name, gradient in gradients.items()}
    torch.testing.assert_close((nats, gradients), expected, rtol=1e-6, atol=1e-7)
    assert any("scaled_dot_product" in graph.code for graph in graphs)
    assert not any("log_softmax" in graph.code for graph in graphs)


# ---- what falls back ----


class Centred(LlamaForCausalLM):
    """A step after the output layer that is not pointwise."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits - output.logits.amin(dim=-1, keepdim=True) ** 2
        return output


def test_an_odd_head_falls_back_with_one_notice_and_right_values(caplog):
    model = Centred(build("llama").config).double()
    assert_same(model, batch(), rtol=1e-12, atol=1e-14)
    token_nats(model, batch())
    (notice,) = caplog.messages
    assert notice == (
        "llama: token losses are computed from all the logits at once, which takes memory: "
        "its logits are more than a linear layer of the hidden states, a scale and a soft cap"
    )
    assert token_nats(model.bfloat16(), batch()).dtype == torch.float32


class Bigrams(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(VOCAB_SIZE, VOCAB_SIZE, dtype=torch.float64)

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        return type("Output", (), {"logits": self.table(input_ids)})


def test_what_is_no_model_of_transformers_falls_back(caplog):
    assert_same(Bigrams(), batch(), rtol=1e-12, atol=1e-14)
    assert caplog.messages == [
        "Bigrams: token losses are computed from all the logits at once, which takes memory: "
        "it is not a model of transformers"
    ]


def test_parameters_on_no_device_fall_back(caplog):
    with torch.device("meta"):
        model = LlamaForCausalLM(build("llama").config)
    install(model)
    assert "its parameters were sharded, or on no device yet" in caplog.text


def test_losses_that_come_out_in_low_precision_are_refused():
    """As the mixed-precision policy of FSDP can have it."""
    model = build("llama", dtype=torch.float32)
    model.register_forward_hook(lambda module, inputs, output: output.bfloat16())
    with pytest.raises(InputError, match=r"came out in torch\.bfloat16.*set its output_dtype to None"):
        token_nats(model, batch())


# ---- what stays as it was ----


def test_the_ordinary_forward_is_unchanged():
    plain, model = build("phi (bias)").eval(), build("phi (bias)").eval()
    install(model)
    assert inspect.signature(model.forward) == inspect.signature(plain.forward)
    inputs = batch()
    tokens = inputs["input_ids"]
    expected, found = (m(tokens, output_hidden_states=True, logits_to_keep=2) for m in (plain, model))
    assert torch.equal(found.logits, expected.logits)
    assert found.keys() == expected.keys()
    assert torch.equal(model(**inputs).loss, plain(**inputs).loss)
    expected, found = (m.generate(tokens[:1, :4], max_new_tokens=5, do_sample=False) for m in (plain, model))
    assert torch.equal(found, expected)


def test_installing_again_changes_nothing():
    model = build("llama")
    install(model)
    first, first_linear = model.forward, model.lm_head.forward
    install(model)
    assert model.forward is first
    assert model.lm_head.forward is first_linear


def test_saving_loading_copying_and_pickling(tmp_path, no_full_logits):
    plain, model = build("cohere (tied, multiplied)").eval(), build("cohere (tied, multiplied)").eval()
    expected = token_nats(model, batch())
    for each, folder in ((plain, "plain"), (model, "installed")):
        each.save_pretrained(tmp_path / folder)
    assert json.loads((tmp_path / "plain" / "config.json").read_text()) == json.loads(
        (tmp_path / "installed" / "config.json").read_text()
    )
    assert model.state_dict().keys() == plain.state_dict().keys()
    copies = [
        AutoModelForCausalLM.from_pretrained(tmp_path / "installed", dtype=torch.float64),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ]
    for copied in copies:
        torch.testing.assert_close(token_nats(copied, batch()), expected, rtol=1e-6, atol=1e-6)  # rotary in float32
        with torch.no_grad():
            copied.get_output_embeddings().weight.zero_()  # a copy scores with its own parameters
        uniform = torch.full_like(expected, torch.tensor(VOCAB_SIZE).log().item())
        mask = token_loss.target_mask(batch())
        torch.testing.assert_close(token_nats(copied, batch()), uniform * mask)
    assert torch.equal(token_nats(model, batch()), expected)


def test_a_resized_vocabulary(no_full_logits):
    model = build("llama").eval()
    token_nats(model, batch())
    model.resize_token_embeddings(VOCAB_SIZE + 9, mean_resizing=False)
    assert_same(model, batch())


# ---- accelerate's mixed precision, which wraps the forward ----


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_accelerate_wraps_around_what_was_installed(accelerator, no_full_logits):
    model = build("llama", dtype=torch.float32).eval()
    exact = full_logits_nats(model, batch())
    install(model)
    prepared = accelerator.prepare(model)
    nats = token_nats(prepared, batch())
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, exact, rtol=0.05, atol=0.05)
    assert not torch.allclose(nats, exact, rtol=1e-4)  # it was computed under autocast
    unwrapped = accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    torch.testing.assert_close(token_nats(unwrapped, batch()), exact, rtol=1e-5, atol=1e-5)


def test_installed_too_late_falls_back_to_the_logits_of_the_wrapped_forward(accelerator, caplog):
    model = accelerator.prepare(build("llama", dtype=torch.float32).eval())
    expected = full_logits_nats(model, batch())
    torch.testing.assert_close(token_nats(model, batch()), expected, rtol=1e-6, atol=1e-6)
    assert "its forward was wrapped before doremi.models.token_loss.install was called" in caplog.text
    token_nats(model, batch())
    assert len(caplog.messages) == 1
