"""A causal LM as lm-evaluation-harness sees it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from doremi.errors import InputError
from doremi.evaluation.checkpoints import float32_model
from doremi.models.pretrained import FOREIGN_ERRORS, reason


class LanguageModel(HFLM):
    """lm-eval's own, with room for a prompt also where sequences are short."""

    @property
    def max_gen_toks(self) -> int:
        """Tokens that an answer may have where the task does not say: 256, at most half of the model's positions."""
        return min(super().max_gen_toks, self.max_length // 2)

    def truncates(self, requests: Sequence[Sequence[Any]]) -> bool:
        """Whether the prompt of a document's requests (lm-eval's arguments) loses its beginning.

        Rolling windows, which have no continuation, lose nothing.
        """
        return any(self._num_lost(*request) > 0 for request in requests)

    def _num_lost(self, context: str, continuation: str | dict[str, Any] | None = None) -> int:
        if continuation is None:
            return 0
        if isinstance(continuation, str):  # its last token is no input
            return len(self.tok_encode(context + continuation)) - 1 - self.max_length
        room = self.max_length - continuation.get("max_gen_toks", self.max_gen_toks)
        return len(self.tok_encode(context)) - room


def load(folder: Path, *, batch_size: int) -> LanguageModel:
    """Any causal LM that transformers loads, in float32, with the tokenizer in its folder; on the GPU if there is one.

    Raises:
        InputError: transformers cannot load it, or a tensor of it is missing or left over.
    """
    model = float32_model(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except FOREIGN_ERRORS as error:
        raise InputError(
            f"{folder}: no causal LM with its tokenizer that transformers can load: {reason(error)}"
        ) from None
    with quiet():
        return LanguageModel(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


@contextmanager
def quiet() -> Iterator[None]:
    """Without lm-eval's log: its warnings are about what is asked for here. Progress bars and errors stay."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
