"""What upstream's repository (`sangmichaelxie/doremi`, 2023-12-26) computes, as facts and written anew.

With one micro-batch per step, and the α of its rank 0 (the others still have α_{t−1} in their part of the gradient):

1. λ_i = mean over the targets of domain i of max(proxy − reference, 0), as in the paper. A domain that is not in the
   batch keeps its λ; before it was ever in one, that is the logarithm of the vocabulary size.
2. α_t = (1 − ε) · softmax(log α_{t−1} + η λ) + ε / k; α_0 are the sampling weights s.
3. a_i = (α_t,i / s_i) / Σ_m (α_t,m / s_m), and Z = Σ over all targets of all ranks of a_{d(j)}.
4. A rank's loss is Σ_{own j} a_{d(j)} ℓ_j / (Z / world size); DDP averages the gradients of the ranks.
5. The answer is the mean of α_0, α_1, ..., α_T.

With several micro-batches, Z is that of each micro-batch, and the losses of the micro-batches are averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.parity.recorded import Token


@dataclass
class Upstream:
    """One run, in double precision."""

    sampling_weights: list[float]
    eta: float
    eps: float
    history: list[list[float]] = field(default_factory=list)  # α_0, α_1, ...

    def __post_init__(self) -> None:
        self.history.append(list(self.sampling_weights))

    @property
    def answer(self) -> list[float]:
        return [math.fsum(column) / len(self.history) for column in zip(*self.history, strict=True)]

    def update(self, tokens: list[Token]) -> None:
        """Points 1 and 2, for a batch that has every domain."""
        logits = []
        for domain, weight in enumerate(self.history[-1]):
            clipped = [max(t.proxy_nats - t.reference_nats, 0.0) for t in tokens if t.domain == domain]
            logits.append(math.log(weight) + self.eta * math.fsum(clipped) / len(clipped))
        total = math.fsum(map(math.exp, logits))
        uniform = 1 / len(logits)
        self.history.append([(1 - self.eps) * math.exp(logit) / total + self.eps * uniform for logit in logits])

    def rank_losses(self, tokens_of_ranks: list[list[Token]]) -> list[float]:
        """Points 3 and 4."""
        ratios = [alpha / s for alpha, s in zip(self.history[-1], self.sampling_weights, strict=True)]
        importance = [ratio / math.fsum(ratios) for ratio in ratios]
        normaliser = math.fsum(importance[t.domain] for tokens in tokens_of_ranks for t in tokens)
        normaliser /= len(tokens_of_ranks)
        return [math.fsum(importance[t.domain] * t.proxy_nats for t in own) / normaliser for own in tokens_of_ranks]
