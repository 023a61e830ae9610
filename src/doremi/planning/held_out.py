"""What the evaluations on held-out text take: forward passes, during training and at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from doremi.corpus import TokenStore
from doremi.evaluation.config import EvaluationConfig
from doremi.experiment.recipe import Recipe
from doremi.planning.stages import Stage


class HeldOutScoring(NamedTuple):
    """All evaluations together, those of sets among them. Few-shot tasks are not counted."""

    num_tokens: int
    flops: float  # NaN: not known


def scoring(recipe: Recipe, stages: Sequence[Stage], store: TokenStore, names: Sequence[str]) -> HeldOutScoring:
    """Every model every ``eval_steps`` and at its last step; the compared ones once more when they are finished.

    ``names`` are the domains; the store's evaluation sets are scored with them.
    """
    num_tokens, flops = 0, 0.0
    for stage in stages:
        config = recipe.training.for_run(stage.model)
        during = math.ceil(config.steps / config.eval_steps) * _num_tokens(
            store, names, recipe.evaluation.during_training()
        )
        at_the_end = _num_tokens(store, names, recipe.evaluation)
        scored = stage.num_models * during + stage.num_compared * at_the_end
        num_tokens += scored
        flops += scored * stage.size.forward_flops(config.sequence_length) / config.sequence_length
    return HeldOutScoring(num_tokens, flops)


def _num_tokens(store: TokenStore, names: Sequence[str], config: EvaluationConfig) -> int:
    cap = config.max_tokens_per_domain or math.inf
    of_domains = [store.num_tokens(name, split="held_out") for name in names]
    of_sets = [store.num_tokens(name, split="set") for name in store.sets]
    return int(sum(min(count, cap) for count in (*of_domains, *of_sets)))
