"""What finished models are scored on: the recipe's ``evaluation``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from doremi.config import (
    MAX_MODELS,
    MAX_ROWS,
    Count,
    Section,
)
from doremi.corpus.config import SetConfig


class EvaluationConfig(Section):
    """Held-out evaluation, during training and at the end."""

    sets: list[SetConfig] = Field(
        [],
        description="text that every model is evaluated on beside the domains' held-out text, and that is never "
        "trained on, such as benchmark answers or a client's documents: training documents equal to one of it are "
        "left out and counted. Entries of one name are one set; prepared with the corpus",
    )
    max_tokens_per_domain: Count | None = Field(
        None, ge=1, description="tokens scored per domain and per set, the same cap for all; absent: all of them"
    )
    max_tokens_during_training: Count | None = Field(
        None,
        ge=1,
        description="the same cap for the evaluations every eval_steps, where scoring as much as at the end takes too "
        "long; absent: max_tokens_per_domain",
    )
    batch_size: Count = Field(64, ge=1, le=MAX_ROWS, description="windows per forward pass")
    tasks: list[str] = Field(
        [],
        description="few-shot tasks to ask every compared model, through lm-evaluation-harness (extra `eval`): its "
        "names, YAML files in its format or folders of them (with a /), or paper, the paper's five",
    )
    num_fewshot: Count = Field(
        1, ge=0, le=MAX_MODELS, description="solved examples before each question, the same for every model"
    )
    task_limit: Count | None = Field(None, ge=1, description="documents asked per task, the same for all; absent: all")
    task_checkpoints: Literal["final", "all"] = Field(
        "final",
        description="all: also the checkpoints that are still there (training.save_total_limit), for the average of "
        "the tasks over steps",
    )

    def during_training(self) -> EvaluationConfig:
        """What is scored every eval_steps."""
        cap = self.max_tokens_during_training or self.max_tokens_per_domain
        return EvaluationConfig(max_tokens_per_domain=cap, batch_size=self.batch_size)
