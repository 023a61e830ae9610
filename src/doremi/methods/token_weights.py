"""What one target token of each domain weighs in the loss Σ_j w_{d(j)} ℓ_j, given the adversary's weights α.

N_i are the target tokens of domain i in the global batch. All arrays are float64[k]. A domain without tokens gets 0:
nothing carries its weight.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

LossNormalisation = Literal["domain_mean", "self_normalised"]


def domain_mean(weights: np.ndarray, token_counts: np.ndarray, *, presence_probabilities: np.ndarray) -> np.ndarray:
    """w_i = α_i / (p_i N_i): Eq. 1 of the paper, Σ_i α_i · mean loss of domain i.

    Unbiased also where domains may be absent: domain i is in a global batch with probability p_i.
    """
    return _ratio(_ratio(weights, presence_probabilities), token_counts)  # p = 0: never drawn, and never weighed


def self_normalised(weights: np.ndarray, token_counts: np.ndarray, *, sampling_weights: np.ndarray) -> np.ndarray:
    """w_i = a_i / Σ_m a_m N_m with a_i = α_i / s_i: upstream's, an importance-weighted mean over the batch's tokens.

    The weights of all target tokens sum to 1. The same as `domain_mean` where N is in proportion to s; elsewhere domain
    i has the share of the gradient that a_i N_i has of their sum: domains with shorter rows count less than α says, and
    those absent pass their share on to the others. s may have any scale.
    """
    ratios = _ratio(weights, sampling_weights)
    return _ratio(ratios, np.full_like(ratios, ratios @ token_counts))


def _ratio(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    return np.divide(numerators, denominators, out=np.zeros_like(numerators), where=denominators > 0)
