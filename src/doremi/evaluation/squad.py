"""SQuADv2 with lm-eval's prompts, scored by document.

lm-eval 0.4.13 cannot show solved examples of it (its pull request 3686), downloads a program for its score, gives
percent, and nothing by document.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any, ClassVar

from lm_eval.api.metrics import mean
from lm_eval.tasks.squadv2.task import SQuAD2


class SQuADv2(SQuAD2):
    """An answer counts if it is one of those given, or empty where the text has none: lm-eval's ``exact``, in 0 to 1.

    Source: Rajpurkar et al. 2018, "Know What You Don't Know", and their evaluation script, version 2.0.
    """

    NAME: ClassVar = "squadv2"

    def __init__(self) -> None:
        super().__init__()
        self.config.task = self.NAME

    def doc_to_text(self, doc: dict[str, Any], doc_to_text: None = None) -> str:
        """Title, background and question."""
        return super().doc_to_text(doc)

    def doc_to_target(self, doc: dict[str, Any], doc_to_target: None = None) -> str:
        """The answer that a solved example shows; lm-eval puts the space before it."""
        return super().doc_to_target(doc).strip()

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> Any:
        """The answer, without the probability of "unanswerable", which exact match does not depend on."""
        return super().construct_requests(doc, ctx, **kwargs)[:1]

    def process_results(self, doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
        """1 or 0 for one document."""
        answers = [words for answer in doc["answers"]["text"] if (words := _words(answer))] or [[]]
        return {"exact": float(_words(results[0]) in answers)}

    def aggregation(self) -> dict[str, Any]:
        """The mean over documents."""
        return {"exact": mean}

    def higher_is_better(self) -> dict[str, bool]:
        """Yes."""
        return {"exact": True}


def _words(answer: str) -> list[str]:
    """Without case, punctuation and articles."""
    bare = "".join(character for character in answer.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()
