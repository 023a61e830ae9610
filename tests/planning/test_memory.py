"""The memory formula against what autograd saves."""

from __future__ import annotations

import pytest
import torch

from doremi.models import loading, token_loss
from doremi.models.config import ModelConfig
from doremi.models.size import ModelSize, size_of
from doremi.models.widths import Widths
from doremi.planning.memory import estimate, optimizer_bytes
from doremi.training.config import TrainingConfig
from tests.planning.recipes import size

ROWS, LENGTH = 2, 96  # 192 tokens: no matrix of a model has that size


def saved_bytes(preset, num_layers, *, half):
    """Bytes of activations that the forward pass of a training step leaves behind, and the model."""
    config = ModelConfig(preset=preset, overrides={"num_hidden_layers": num_layers})
    hf_config = loading.configure(config, vocab_size=300, eos_token_id=0, sequence_length=LENGTH)
    model = loading.build(config, hf_config, seed=0, attention="sdpa")
    token_loss.install(model)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {tuple(parameter.shape) for parameter in model.parameters()}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        is_weight = tuple(tensor.shape) in shapes or tuple(tensor.t().shape) in shapes if tensor.ndim == 2 else False
        if storage.data_ptr() not in parameters and not is_weight:  # bf16 copies of weights are counted elsewhere
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    batch = {"input_ids": ids, "labels": ids, "domain_ids": torch.zeros(ROWS, dtype=torch.long)}
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=half),
    ):
        token_loss.token_nats(model, batch)
    return sum(num_bytes for num_bytes, _ in saved.values()), model


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("preset", "tolerance"), [("70m", 0.03), ("280m", 0.03), ("tiny", 0.3)])
def test_activations(preset, tolerance, half):
    """Of two layers, by difference; the formula is made for MLPs of two matrices and generous with gated ones."""
    four, model = saved_bytes(preset, 4, half=half)
    two, smaller = saved_bytes(preset, 2, half=half)
    config = TrainingConfig(sequence_length=LENGTH, arguments={"bf16": half})
    planned = [
        estimate(size_of(each), config, micro_batch_size=ROWS, num_devices=1).activations for each in (model, smaller)
    ]
    assert planned[0] - planned[1] == pytest.approx(four - two, rel=tolerance)


def memory(num_devices=1, frozen_bytes=0, micro_batch_size=4, **arguments):
    config = TrainingConfig(sequence_length=100, arguments=arguments)
    return estimate(
        size(10_000), config, micro_batch_size=micro_batch_size, num_devices=num_devices, frozen_bytes=frozen_bytes
    )


def test_parameters_gradients_and_optimizer():
    assert memory()[:3] == (40_000, 40_000, 80_000)
    assert memory(frozen_bytes=500).parameters == 40_500
    assert memory(num_devices=2)[:3] == (40_000, 80_000, 80_000)  # DDP's buckets
    assert memory(bf16=True).parameters == 60_000
    assert memory(num_devices=4, fsdp=True, frozen_bytes=7)[:3] == (10_007, 10_000, 20_000)
    assert memory().total == sum(memory())


def test_checkpointing_keeps_the_inputs_of_layers():
    widths = Widths(num_layers=10, hidden_size=8, attention_size=8, mlp_size=32, num_mlp_matrices=2)
    deep = ModelSize(num_parameters=0, vocab_size=5, widths=widths, forward_flops=float)
    config = TrainingConfig(sequence_length=100)
    layer = 44 * 8 + 2 * 4 * 32
    whole = estimate(deep, config, micro_batch_size=1, num_devices=1).activations
    assert whole == 100 * 10 * layer
    for arguments in ({"gradient_checkpointing": True}, {"fsdp_config": {"activation_checkpointing": True}}):
        config = TrainingConfig(sequence_length=100, arguments=arguments)
        assert estimate(deep, config, micro_batch_size=1, num_devices=1).activations == 100 * (layer + 10 * 4 * 8)


def test_logits_are_held_in_chunks():
    assert memory().logits == 3 * 4 * 4 * 100 * 50
    assert memory(micro_batch_size=10**6).logits == 3 * 2**29


@pytest.mark.parametrize(
    ("optim", "num_bytes"), [("adamw_torch_fused", 8), ("adafactor", 0), ("adamw_bnb_8bit", 2), ("lion_32bit", 4)]
)
def test_optimizers(optim, num_bytes):
    assert optimizer_bytes(TrainingConfig(arguments={"optim": optim})) == num_bytes
