"""What a run minimises, and what its policy sees of it: a policy or none, the reference that it needs, sums by domain.

For each optimizer step the trainer adds up `Objective.sums` over all micro-batches and ranks, gives them to
`Objective.update` once, and back-propagates ``Σ_j w_j nats_j`` with ``w = Objective.token_weights(domain_ids)``.
Reference, proxy and main differ only in the objective.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from doremi.errors import InputError, NotFiniteError
from doremi.methods import group_dro, states, token_weights
from doremi.methods.group_dro import GroupDRO, GroupDROState, Target, WeightsUpdate
from doremi.methods.group_dro_options import GroupDROOptions
from doremi.methods.protocol import Policy, Seen
from doremi.methods.token_weights import LossNormalisation
from doremi.models.token_loss import Batch, target_mask, token_nats
from doremi.training.reference_cache import ReferenceCache
from doremi.weights import DomainWeights, natural, uniform

QUANTITIES: dict[str, str] = {"losses": "loss", "excess": "excess loss", "reference": "reference loss"}  # of `Sees`
COMPARED = ("excess", "reference")  # of these: what a reference is needed for


class DomainSums(NamedTuple):
    """What crosses micro-batches and ranks: sums and counts, never means. float64[k] each (counts stay exact)."""

    sums: torch.Tensor
    token_counts: torch.Tensor

    def __add__(self, other: object) -> DomainSums:
        """Elementwise."""
        if not isinstance(other, DomainSums):
            return NotImplemented
        return DomainSums(self.sums + other.sums, self.token_counts + other.token_counts)


def domain_sums(row_sums: torch.Tensor, domain_ids: torch.Tensor, *, num_domains: int) -> torch.Tensor:
    """float64[k]: ``row_sums[B]`` added up by domain."""
    total = torch.zeros(num_domains, dtype=torch.float64, device=row_sums.device)
    return total.index_add_(0, domain_ids, row_sums.double())


def count_targets(batch: Batch, *, num_domains: int) -> torch.Tensor:
    """float64[k]: target tokens of each domain in a micro-batch."""
    return domain_sums(target_mask(batch).sum(dim=1), batch["domain_ids"], num_domains=num_domains)


class Objective:
    """How a run turns per-token losses into a gradient, and what its policy has come to.

    Without a policy, or with one that has no loss weights, it is the mean loss over the target tokens of the global
    batch, w_j = 1 / N_global. With loss weights α it is Σ_i α_i · mean loss of domain i (Xie et al. 2023, Eq. 1),
    w_j = α_{d(j)} / N_{d(j)}. The gradient is of the unclipped loss; α is a constant in it, and the reference term,
    constant in the parameters, is left out.

    Args:
        names: domain names, in the order of the batch's ``domain_ids``.
        policy: what moves weights while the run trains; None: nothing does.
        state: the policy's, before the first step: ``policy.init(bench)``.
        reference: frozen causal LM over the same vocabulary; put into eval mode here. Not part of what is trained.
        cache: where the reference's losses are read from, and stored when they are first computed.

    Raises:
        InputError: the policy needs a reference and there is none, or sees what cannot be computed yet.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        policy: Policy | None = None,
        state: Any = None,
        reference: torch.nn.Module | None = None,
        cache: ReferenceCache | None = None,
    ) -> None:
        if policy is not None:
            _check_sees(policy, reference)
        self.names = tuple(names)
        self.policy = policy
        self.state = state
        self.reference = None if reference is None else reference.eval().requires_grad_(False)
        self._cache = cache
        self.num_scored_rows = 0  # that went through the reference, in this process
        self._presence = np.ones(len(self.names))
        self._sampling_weights = np.ones(len(self.names))  # uniform: the scale is of no consequence
        self._weight_per_token = torch.zeros(len(self.names), dtype=torch.float64)

    # ---- what the trainer has to know before the first step ----

    @property
    def is_measured_first(self) -> bool:
        """Whether a step's losses are needed before its backward pass."""
        return self.policy is not None and self.policy.when == "before"

    @property
    def is_measured_after(self) -> bool:
        """Whether a step's losses are needed, but only once it has been back-propagated."""
        return self.policy is not None and self.policy.when == "after"

    @property
    def has_loss_weights(self) -> bool:
        """Whether domains have shares of the loss, which a domain that is absent from the batch would miss."""
        return self.policy is not None and self.policy.loss_weights(self.state) is not None

    @property
    def compares_losses(self) -> bool:
        """Whether weights of the loss depend on the losses themselves, which noise in the model must not decide."""
        compares = self.policy is not None and self.policy.sees in COMPARED
        return compares or self.is_measured_first or self.has_loss_weights

    @property
    def may_skip_reference(self) -> bool:
        """Whether there may be batches, of some ranks only, for which the reference is not called."""
        return self._cache is not None

    def default_sampling_weights(self, token_counts: Mapping[str, int]) -> DomainWeights:
        """What the loader draws with unless the user says otherwise: uniform where the importance is in the loss.

        Otherwise in proportion to the tokens.
        """
        if self.has_loss_weights:
            return uniform(self.names)
        return natural({name: token_counts[name] for name in self.names})

    def expect_absences(
        self, presence_probabilities: np.ndarray, *, sampling_weights: np.ndarray | None = None
    ) -> None:
        """Divide each present domain's gradient by its probability of being present: Eq. 1 stays unbiased.

        Called before the first step, and again whenever sampling weights move, with the probability p (float64[k]) that
        a global batch holds each domain, and the weights s (float64[k]) that rows are drawn with.

        Renormalising α over the present domains would not be unbiased: with α = 0.9 on one of 22 domains and 8 rows, it
        turns 0.9 into 0.35.
        """
        self._presence = presence_probabilities
        if sampling_weights is not None:
            self._sampling_weights = sampling_weights

    # ---- a step ----

    def sums(self, nats: torch.Tensor, batch: Batch) -> DomainSums:
        """What the policy sees of a micro-batch, ``nats[B, T-1]`` without gradient; zeros where it sees nothing."""
        num_domains = len(self.names)
        counts = count_targets(batch, num_domains=num_domains)
        if self.policy is None:
            return DomainSums(torch.zeros_like(counts), counts)
        with torch.inference_mode():
            row_sums = self._seen_nats(nats, batch).sum(dim=1, dtype=torch.float64)
            return DomainSums(domain_sums(row_sums, batch["domain_ids"], num_domains=num_domains), counts)

    def update(self, sums: DomainSums, *, step: int = 1, row_counts: np.ndarray | None = None) -> None:
        """Once per optimizer step, with the sums of the GLOBAL batch, identical on all ranks; fixes the weights too.

        Args:
            sums: over all micro-batches and ranks.
            step: the first is 1.
            row_counts: int64[k], rows of each domain in the global batch; None: not known.

        Raises:
            NotFiniteError: a sum is not finite, or what the policy makes of them.
        """
        if self.policy is not None:
            counts = sums.token_counts.round().to(torch.int64).cpu().numpy()
            rows = np.zeros_like(counts) if row_counts is None else row_counts
            seen = Seen(step, sums.sums.cpu().numpy(), counts, rows)
            self._check_finite(seen, QUANTITIES[self.policy.sees])
            self.state = self.policy.update(self.state, seen)
        self.weigh(sums.token_counts)

    def weigh(self, token_counts: torch.Tensor) -> None:
        """Fix the weights of tokens from N (float64[k]) of the GLOBAL batch and from the policy's state as it is."""
        weights = self._token_weights(token_counts.cpu().numpy())
        self._weight_per_token = torch.from_numpy(weights).to(token_counts.device)

    def token_weights(self, domain_ids: torch.Tensor) -> torch.Tensor:
        """w[B]: the weight of every target token of a row, as `weigh` or `update` last fixed it."""
        return self._weight_per_token.to(domain_ids.device)[domain_ids]

    def _token_weights(self, counts: np.ndarray) -> np.ndarray:
        alpha = None if self.policy is None else self.policy.loss_weights(self.state)
        if self.policy is None or alpha is None:
            return np.full(len(self.names), 1.0 / max(float(counts.sum()), 1.0))
        if self.policy.loss_normalisation == "self_normalised":
            return token_weights.self_normalised(alpha, counts, sampling_weights=self._sampling_weights)
        return token_weights.domain_mean(alpha, counts, presence_probabilities=self._presence)

    def _seen_nats(self, nats: torch.Tensor, batch: Batch) -> torch.Tensor:
        """[B, T-1]: what the policy sees the sums of."""
        assert self.policy is not None
        if self.policy.sees == "losses":
            return nats
        reference_nats = self._reference_nats(batch)
        if self.policy.sees == "reference":
            return reference_nats
        excess = (nats - reference_nats).clamp_(min=0)
        excess[:, 0] += 0 * reference_nats.sum(dim=1)  # an infinite one was clamped away; this makes it NaN
        return excess

    def _check_finite(self, seen: Seen, quantity: str) -> None:
        for name, value in zip(self.names, seen.sums, strict=True):
            if not np.isfinite(value):
                raise NotFiniteError(
                    f"step {seen.step}: {quantity} sum of domain {name!r} is {value}; stopped before the optimizer "
                    "step. Lower the learning rate, or check this domain's data"
                )

    def _reference_nats(self, batch: Batch) -> torch.Tensor:
        """nats[B, T-1] of the reference.

        Where a row is missing in the cache, the whole micro-batch is computed: a row's losses may depend on the batch
        in the last bits, and must not depend on what happened to be cached. What is used is always what is stored.
        """
        assert self.reference is not None
        if self._cache is None:
            return self._scored(batch)
        domain_ids, rows = batch["domain_ids"].cpu().numpy(), batch["rows"].cpu().numpy()
        cached = self._cache.read(domain_ids, rows)
        missing = ~cached.is_there
        if missing.any():
            computed = self._scored(batch).float().cpu().numpy()
            self._cache.write(domain_ids[missing], rows[missing], computed[missing])
            cached = self._cache.read(domain_ids, rows)
        return torch.from_numpy(cached.nats).to(batch["labels"].device)

    def _scored(self, batch: Batch) -> torch.Tensor:
        assert self.reference is not None
        self.num_scored_rows += len(batch["domain_ids"])
        return token_nats(self.reference, batch)

    # ---- between steps ----

    @property
    def sampling_weights(self) -> np.ndarray | None:
        """float64[k] that the policy wants the next global batch drawn with; None: the run's own throughout."""
        return None if self.policy is None else self.policy.sampling_weights(self.state)

    def metrics(self) -> dict[str, float]:
        """Values worth a tracker's time, as ``quantity/domain``."""
        columns = {} if self.policy is None else self.policy.metrics(self.state)
        return {
            f"{column}/{name}": float(value)
            for column, values in columns.items()
            for name, value in zip(self.names, values, strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        """JSON-able: the policy's state; the reference is not part of it."""
        return {} if self.policy is None else states.dump(self.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`.

        Raises:
            InputError: it is the state of another policy, of other domains or of another order of them.
        """
        if self.policy is not None:
            self.state = states.restore(self.state, state)


class TokenMean(Objective):
    """Plain training: the mean loss over the target tokens of the global batch, w_j = 1 / N_global.

    Args:
        names: domain names, in the order of the batch's ``domain_ids``.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)


class ExcessLoss(Objective):
    """The proxy's objective (Xie et al. 2023, Eq. 1): Σ_i α_i · mean loss of domain i, α from Group DRO.

    As token weights: w_j = α_{d(j)} / N_{d(j)}. The gradient is of the unclipped loss; α is a constant in it, and the
    reference term, constant in the parameters, is left out.

    Args:
        reference: frozen causal LM over the same vocabulary; put into eval mode here. Not part of the proxy.
        names: domain names, in the order of the batch's ``domain_ids``.
        cache: where the reference's losses are read from, and stored when they are first computed.
        step_size: η of Group DRO.
        smoothing: c of Group DRO.
        target: what the adversary raises the weight of; this and what follows: see `GroupDRO`.
        options: what is added to Group DRO beyond the paper.
        loss_normalisation: the paper's, or upstream's, to compare results with it.
        weights_update: ``exact``: α_t of this very step, as in Algorithm 1; with several micro-batches per process they
            are all measured first, at the cost of one more forward pass. ``delayed``: the gradient uses α_{t-1}, and
            no pass is added.

    Raises:
        InputError: no such target, normalisation or update, or what `group_dro.init` refuses.
    """

    def __init__(
        self,
        reference: torch.nn.Module,
        *,
        names: Sequence[str],
        step_size: float = 1.0,
        smoothing: float = 1e-3,
        cache: ReferenceCache | None = None,
        target: Target = "excess",
        options: GroupDROOptions | None = None,
        loss_normalisation: LossNormalisation = "domain_mean",
        weights_update: WeightsUpdate = "exact",
    ) -> None:
        options = options or GroupDROOptions()
        policy = GroupDRO(
            step_size=step_size,
            smoothing=smoothing,
            options=options,
            target=target,
            loss_normalisation=loss_normalisation,
            weights_update=weights_update,
        )
        state = group_dro.init(names, step_size=step_size, smoothing=smoothing, options=options)
        super().__init__(names, policy=policy, state=state, reference=reference, cache=cache)

    @property
    def dro(self) -> GroupDROState:
        """The adversary: α, ᾱ and λ."""
        return self.state

    @dro.setter
    def dro(self, state: GroupDROState) -> None:
        self.state = state

    @property
    def average_weights(self) -> DomainWeights:
        """ᾱ: the domain weights that DoReMi answers with."""
        return DomainWeights(dict(zip(self.names, self.dro.average_weights.tolist(), strict=True)))


def _check_sees(policy: Policy, reference: torch.nn.Module | None) -> None:
    if policy.sees not in QUANTITIES:
        raise InputError(
            f"{type(policy).__name__} sees {policy.sees!r}, which training does not compute yet; a policy can see "
            f"{', '.join(map(repr, QUANTITIES))}"
        )
    if policy.sees in COMPARED and reference is None:
        raise InputError(
            f"{type(policy).__name__} sees {policy.sees!r}, which needs a reference: a trained model whose losses are "
            "compared with"
        )


def presence_probabilities(sampling_weights: np.ndarray, *, global_batch_size: int, sampling: str) -> np.ndarray:
    """float64[k]: how likely each domain is to be in a global batch of b rows drawn with weights s.

    ``iid``: 1 − (1 − s_i)^b. ``balanced``: min(s_i · b, 1), since error diffusion draws a domain of less than one row
    per batch in just that share of the batches.
    """
    if sampling == "balanced":
        rows = sampling_weights * global_batch_size
        return np.where(rows > 1 - 1e-9, 1.0, rows)  # b · (1 / b) may round to just below 1
    with np.errstate(divide="ignore"):  # s_i = 1: log 0, and 1 - exp(-inf) = 1
        return -np.expm1(global_batch_size * np.log1p(-sampling_weights))
