"""Document masking: with separate documents, a row's losses are those of each document read alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from doremi.mixture import MixtureSettings
from doremi.models import token_loss
from doremi.models.token_loss import token_nats
from tests.training.fakes import SEQUENCE_LENGTH, VOCAB_SIZE, InMemoryStore

SIZES = {
    "vocab_size": VOCAB_SIZE,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
WIDTHS = {"hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 32}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **WIDTHS)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **WIDTHS)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SIZES, hidden_size=16, n_positions=32)),
}


def micro_batch(documents):
    store = InMemoryStore()
    for tokens in store.tokens.values():
        tokens[::5] = store.eos_token_id
    mixture = MixtureSettings(sequence_length=SEQUENCE_LENGTH, documents=documents)
    weights = dict.fromkeys(store.names, 1)
    schedule = mixture.schedule(store, store.names, weights=weights, global_batch_size=6, seed=0)
    return next(iter(mixture.loader(store, schedule, micro_batch_size=6)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("documents", ["separate", "joined"])
def test_rows_joined_to_one_for_flash_attention_give_the_same(monkeypatch, name, documents):
    """FlashAttention needs a GPU; what it is given is tried with PyTorch's own kernels, a padded row included."""
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    batch = micro_batch(documents)
    batch["position_ids"] = batch.get("position_ids", torch.arange(SEQUENCE_LENGTH).expand(6, -1))
    mask = torch.ones_like(batch["input_ids"])
    mask[2, 8:] = 0
    batch |= {"attention_mask": mask, "labels": batch["labels"].masked_fill(mask == 0, -100)}
    expected = token_nats(model, {key: value for key, value in batch.items() if key != "attention_mask"})
    shapes = []
    model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "flash_attention_2")
    assert token_loss._attention_wants_one_row(model)
    monkeypatch.undo()
    monkeypatch.setattr(token_loss, "_attention_wants_one_row", lambda model: True)
    found = token_nats(model, batch)
    assert shapes == [(1, 6 * SEQUENCE_LENGTH)]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert (found[2, 7:] == 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_losses_are_those_of_each_document_alone(name):
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    batch = micro_batch("separate")
    with torch.no_grad():
        together = token_nats(model, batch)
        for row, ids in enumerate(batch["input_ids"]):
            starts = sorted({0, *np.flatnonzero(ids.numpy() == 0).tolist()})
            assert len(starts) > 2
            for start, stop in zip(starts, [*starts[1:], len(ids) - 1], strict=True):
                # the EOS that follows is a target of this document, and the beginning of the next one
                piece = ids[None, start : stop + 1]
                alone = token_nats(model, {"input_ids": piece, "labels": piece})
                torch.testing.assert_close(together[row, start:stop], alone[0], rtol=0, atol=1e-12)
        joined = token_nats(model, micro_batch("joined"))
    assert (joined - together).abs().max() > 1e-3
