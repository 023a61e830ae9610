"""A corpus in memory and a model of a few thousand parameters."""

from __future__ import annotations

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

VOCAB_SIZE, SEQUENCE_LENGTH = 29, 12


class InMemoryStore:
    """The part of `TokenStore` that training reads; domains differ in size and in what they contain."""

    eos_token_id = 0
    digest, tokenizer_digest = "corpus", "tokenizer"

    def __init__(self, num_rows=(40, 25, 17), seed=0):
        rng = np.random.default_rng(seed)
        self.names = tuple("abcdefgh"[: len(num_rows)])
        self.tokens = {
            name: rng.integers(1, 5 + 8 * index, size=rows * SEQUENCE_LENGTH).astype(np.uint16)
            for index, (name, rows) in enumerate(zip(self.names, num_rows, strict=True))
        }

    def num_tokens(self, name, split="train"):
        return len(self.tokens[name])

    def num_sequences(self, name, sequence_length):
        return len(self.tokens[name]) // sequence_length

    def rows(self, name, indices, sequence_length):
        rows = self.tokens[name][: self.num_sequences(name, sequence_length) * sequence_length]
        tokens = rows.reshape(-1, sequence_length)[indices].astype(np.int64)
        return tokens, np.full(len(indices), sequence_length)


def tiny_model(seed=0, dtype=torch.float64, **changes):
    config = LlamaConfig(
        **{
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
        | changes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).to(dtype)


def arguments(folder, *, micro_batch=8, accumulation=1, steps=20, **changes):
    settings = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "logging_steps": 5,
        "save_steps": 5,
        "save_total_limit": 2,
        "report_to": "none",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "seed": 3,
        "data_seed": 3,
        "logging_nan_inf_filter": False,
        "average_tokens_across_devices": False,
        "remove_unused_columns": False,
    }
    return TrainingArguments(**settings | changes)


def parameters(model):
    return torch.cat([parameter.detach().double().flatten() for parameter in model.parameters()])
