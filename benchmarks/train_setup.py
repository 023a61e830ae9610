"""What every part of the training benchmark is made of: models, a corpus in memory, trainers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, TrainingArguments

from benchmarks.train_sizes import Sizes
from doremi.mixture import MixtureSettings, RepetitionLimit
from doremi.training import DoReMiTrainer
from doremi.training.signals import Objective

HEAD_WIDTH = 64
SEED = 0


class Setting(NamedTuple):
    """Where a part runs, and what with."""

    sizes: Sizes
    device: torch.device
    folder: Path  # for what trainers write

    def autocast(self) -> AbstractContextManager[Any]:
        """Of a bare loop: what accelerate does for the trainer."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.sizes.bf16)

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class SyntheticStore:
    """Random tokens in memory, as many rows of every domain: the part of `TokenStore` that training reads."""

    eos_token_id = 0
    digest, tokenizer_digest = "synthetic", "none"

    def __init__(self, *, num_domains: int, num_rows: int, sequence_length: int, vocabulary: int) -> None:
        self.names = tuple(f"domain-{index}" for index in range(num_domains))
        rng = np.random.default_rng(SEED)
        shape = (num_domains, num_rows, sequence_length)
        self._tokens = dict(zip(self.names, rng.integers(vocabulary, size=shape, dtype=np.uint16), strict=True))

    def num_tokens(self, name: str) -> int:
        """Of a domain."""
        return self._tokens[name].size

    def num_sequences(self, name: str, sequence_length: int) -> int:
        """Rows of a domain."""
        return len(self._tokens[name])

    def rows(self, name: str, indices: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
        """tokens[n, L] and their lengths."""
        return self._tokens[name][indices], np.full(len(indices), sequence_length)


def build_model(sizes: Sizes, *, seed: int, **changes: Any) -> GPTNeoXForCausalLM:
    """Table 9's kind of model: two-matrix MLP, sequential residual, tied embeddings, no dropout, float32 parameters.

    Rotary embeddings turn a quarter of each head, which is the default of the configuration.
    """
    settings = {
        "vocab_size": sizes.vocabulary,
        "num_hidden_layers": sizes.layers,
        "hidden_size": sizes.width,
        "num_attention_heads": sizes.width // HEAD_WIDTH,
        "intermediate_size": sizes.hidden,
        "max_position_embeddings": sizes.sequence_length,
        "use_parallel_residual": False,
        "tie_word_embeddings": True,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "classifier_dropout": 0.0,  # of a head that is not used, but the trainer would mention it
    }
    torch.manual_seed(seed)
    return GPTNeoXForCausalLM(GPTNeoXConfig(**settings | changes))


def make_trainer(
    setting: Setting, objective: Objective, store: SyntheticStore, *, num_micro_batches: int = 1
) -> DoReMiTrainer:
    """A run of our own loop that would go on for ever."""
    sizes = setting.sizes
    args = TrainingArguments(
        output_dir=str(setting.folder),
        max_steps=10**6,
        per_device_train_batch_size=sizes.rows // num_micro_batches,
        gradient_accumulation_steps=num_micro_batches,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        logging_steps=20,
        save_strategy="no",
        report_to="none",
        bf16=sizes.bf16,
        torch_compile_backend=sizes.compile_backend,
        use_cpu=setting.device.type == "cpu",
        dataloader_pin_memory=False,
        disable_tqdm=True,
        logging_nan_inf_filter=False,
        average_tokens_across_devices=False,
        remove_unused_columns=False,
    )
    model = build_model(sizes, seed=SEED)
    mixture = MixtureSettings(sequence_length=sizes.sequence_length, repetition=RepetitionLimit(float("inf")))
    return DoReMiTrainer(model, objective=objective, corpus=store, args=args, mixture=mixture)
