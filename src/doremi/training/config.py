"""How every model is trained: the recipe's ``training``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from doremi.config import (
    MAX_PROCESSES,
    MAX_ROWS,
    MAX_STEPS,
    MAX_TOKENS,
    Count,
    Number,
    RunName,
    Section,
)
from doremi.mixture import BlockShuffle, MixtureSettings, RepetitionLimit, Shuffle


class TrainingConfig(Section):
    """How every model is trained; ``overrides`` changes it for one of reference, proxy and main."""

    steps: Count = Field(1000, ge=1, le=MAX_STEPS, description="optimizer steps")
    sequence_length: Count = Field(128, ge=2, le=MAX_TOKENS, description="tokens in a training row")
    global_batch_size: Count = Field(16, ge=1, le=MAX_ROWS, description="rows per optimizer step over all processes")
    micro_batch_size: Count | None = Field(
        None,
        ge=1,
        le=MAX_ROWS,
        description="rows per forward pass and process; absent: the largest divisor of the batch up to 64",
    )
    learning_rate: Number = Field(5e-3, gt=0, description="peak learning rate")
    learning_rate_end: Number | None = Field(
        None, ge=0, description="learning rate at the last step; absent: 5 % of the peak"
    )
    schedule: Literal["cosine", "exponential", "linear", "wsd", "constant"] = Field(
        "cosine",
        description="shape of the decay after warm-up; wsd holds the peak, then decays linearly over the last part "
        "(also called trapezoidal)",
    )
    decay_fraction: Number = Field(
        0.2, gt=0, le=1, description="of wsd: share of all steps, at the end, over which the learning rate decays"
    )
    warmup_fraction: Number = Field(0.06, ge=0, lt=1, description="share of the steps that warm up linearly")
    adam_beta1: Number = Field(0.9, ge=0, lt=1, description="AdamW's first-moment decay")
    adam_beta2: Number = Field(0.98, ge=0, lt=1, description="AdamW's second-moment decay")
    adam_epsilon: Number = Field(1e-8, gt=0, description="AdamW's denominator offset")
    weight_decay: Number = Field(0.01, ge=0, description="decoupled weight decay")
    max_grad_norm: Number = Field(1.0, gt=0, description="gradients are clipped to this global norm")
    sampling: Literal["balanced", "iid"] = Field(
        "balanced", description="balanced: error-diffused counts per batch; iid: independent draws, as in the paper"
    )
    row_order: Literal["shuffle", "block_shuffle"] = Field(
        "shuffle",
        description="order of a domain's rows in each epoch. shuffle: any row anywhere; block_shuffle: blocks of 256 "
        "rows in random order, mixed 64 at a time, for storage where random reads are slow",
    )
    documents: Literal["joined", "separate"] = Field(
        "joined",
        description="joined: attention sees the whole row; separate: positions restart at EOS and attention stays "
        "within a document (refused for model types that cannot, such as recurrent ones)",
    )
    reading: Literal["on_demand", "ahead"] = Field(
        "on_demand",
        description="ahead: a background thread reads the rows of the next batch. The result does not depend on it",
    )
    max_epochs: Number = Field(
        4.0, gt=0, description="epochs of a domain beyond which repeated text is worth less than new text"
    )
    on_max_epochs: Literal["warn", "error", "renormalise"] = Field(
        "warn",
        description="what happens there. warn: once a domain, and go on; error: stop the run; renormalise: the domain "
        "gets weight 0 and the others are scaled up",
    )
    eval_steps: Count = Field(100, ge=1, description="steps between evaluations on held-out text")
    save_steps: Count = Field(100, ge=1, description="steps between checkpoints")
    logging_steps: Count = Field(20, ge=1, description="steps between log lines")
    save_total_limit: Count = Field(2, ge=1, description="complete checkpoints to keep of a run in progress")
    num_threads: Count | None = Field(
        None, ge=1, le=MAX_PROCESSES, description="CPU threads of torch; absent: all cores"
    )
    arguments: dict[str, Any] = Field(
        {}, description="passed through to transformers.TrainingArguments, such as bf16, report_to, torch_compile"
    )
    overrides: dict[RunName, dict[str, Any]] = Field(
        {}, description="settings that differ for reference, proxy or main, such as {main: {steps: 5000}}"
    )

    def for_run(self, run: RunName) -> TrainingConfig:
        """The settings of one run, its overrides applied and validated."""
        settings = self.model_dump(exclude={"overrides"}) | self.overrides.get(run, {})
        return TrainingConfig.model_validate(settings)

    @property
    def num_tokens(self) -> int:
        """Tokens that the run is trained on."""
        return self.steps * self.global_batch_size * self.sequence_length

    def mixture(self) -> MixtureSettings:
        """How batches are read, for `doremi.mixture`."""
        return MixtureSettings(
            sequence_length=self.sequence_length,
            mode=self.sampling,
            row_order=BlockShuffle() if self.row_order == "block_shuffle" else Shuffle(),
            repetition=RepetitionLimit(self.max_epochs, self.on_max_epochs),
            documents=self.documents,
            reading=self.reading,
        )

    @model_validator(mode="after")
    def _overrides_are_valid(self) -> TrainingConfig:
        for run, changes in self.overrides.items():
            if unknown := set(changes) - set(TrainingConfig.model_fields) | ({"overrides"} & set(changes)):
                raise ValueError(f"overrides.{run}: unknown setting {sorted(unknown)[0]!r}")
            self.for_run(run)
        return self
