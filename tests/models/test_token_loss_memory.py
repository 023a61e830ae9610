"""How much memory the losses take, forward and backward, by the allocator's own account."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from doremi.models import linear_nats
from doremi.models.token_loss import token_nats


def small_body(*, vocab_size):
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config)


def full_logits_nats(model, batch):
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1]
    targets = batch["labels"][:, 1:]
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


def measure(folder, nats_of, model, *, num_rows, num_targets):
    """Nats, and by how many bytes one forward and backward pass exceeded what was allocated before it."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(model.config.vocab_size, (num_rows, num_targets + 1), generator=generator)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        nats = nats_of(model, {"input_ids": tokens, "labels": tokens})
        if nats.requires_grad:
            nats.mean().backward()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    allocated = [event["args"]["Total Allocated"] for event in events if event.get("name") == "[memory]"]
    model.zero_grad()
    return nats.detach(), max(allocated) - allocated[0]


def test_memory_does_not_grow_with_batch_times_vocabulary(tmp_path, monkeypatch):
    """Twice the tokens take as much as their hidden states do, 16 more rows of 64 tokens 1 % of their logits."""
    monkeypatch.setitem(linear_nats.CHUNK_ROWS, "cpu", 64)
    monkeypatch.setattr(linear_nats, "KEPT_BYTES", 0)
    model = small_body(vocab_size=10_000)
    peaks = [measure(tmp_path, token_nats, model, num_rows=rows, num_targets=64)[1] for rows in (16, 32)]
    logits = 16 * 64 * 10_000 * 4
    assert peaks[0] < 0.3 * logits
    assert peaks[1] - peaks[0] < 0.02 * logits


def test_logits_that_are_kept_are_kept_once(tmp_path, monkeypatch):
    """One copy of them and two chunks; cross-entropy of all the logits holds three."""
    monkeypatch.setitem(linear_nats.CHUNK_ROWS, "cpu", 64)
    model = small_body(vocab_size=10_000)
    logits = 32 * 64 * 10_000 * 4
    nats, peak = measure(tmp_path, token_nats, model, num_rows=32, num_targets=64)
    expected, full_peak = measure(tmp_path, full_logits_nats, model, num_rows=32, num_targets=64)
    torch.testing.assert_close(nats, expected, rtol=0, atol=1e-5)
    assert logits < peak < 1.2 * logits
    assert full_peak > 2.9 * logits


def test_without_gradient_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setitem(linear_nats.CHUNK_ROWS, "cpu", 64)
    with torch.no_grad():
        _, peak = measure(tmp_path, token_nats, small_body(vocab_size=10_000), num_rows=32, num_targets=64)
    assert peak < 0.1 * 32 * 64 * 10_000 * 4


@pytest.mark.slow
def test_a_large_batch_takes_a_small_part_of_the_memory_of_all_its_logits(tmp_path):
    """B · T = 8,192 and V = 50,257, as it comes: measured 139 MB instead of 4,947 MB."""
    model = small_body(vocab_size=50_257)
    nats, peak = measure(tmp_path, token_nats, model, num_rows=8, num_targets=1024)
    expected, full_peak = measure(tmp_path, full_logits_nats, model, num_rows=8, num_targets=1024)
    torch.testing.assert_close(nats, expected, rtol=0, atol=1e-5)
    assert peak < 0.05 * full_peak
