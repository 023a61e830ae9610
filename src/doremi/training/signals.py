"""What a run minimises. The trainer knows one protocol; reference, proxy and main differ only in the objective.

For each optimizer step the trainer adds up `Objective.sums` over all micro-batches and ranks, calls
`Objective.update` once, and back-propagates ``Σ_j w_j nats_j`` with ``w = Objective.token_weights(domain_ids)``. Where
the weights do not depend on the step's losses, it calls `Objective.begin_step` instead, before the first forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch

from doremi.errors import InputError, check_choice
from doremi.methods import group_dro, token_weights
from doremi.methods.group_dro_options import GroupDROOptions
from doremi.methods.token_weights import LossNormalisation
from doremi.models.token_loss import Batch, target_mask, token_nats
from doremi.training.reference_cache import ReferenceCache
from doremi.weights import DomainWeights, natural, uniform

Target = Literal["excess", "hardest", "easiest"]


class DomainSums(NamedTuple):
    """What crosses micro-batches and ranks: sums and counts, never means. float64[k] each (counts stay exact)."""

    excess_sums: torch.Tensor
    token_counts: torch.Tensor

    def __add__(self, other: object) -> DomainSums:
        """Elementwise."""
        if not isinstance(other, DomainSums):
            return NotImplemented
        return DomainSums(self.excess_sums + other.excess_sums, self.token_counts + other.token_counts)


class Objective(Protocol):
    """How a run turns per-token losses into a gradient."""

    needs_losses: bool  # whether there is anything to update; if not, `begin_step` is all that is called

    @property
    def names(self) -> tuple[str, ...]:
        """Domain names in the order of the batch's ``domain_ids``."""

    def begin_step(self, token_counts: torch.Tensor) -> None:
        """Fix this step's token weights from N (float64[k]) of the GLOBAL batch and from what earlier steps left."""

    def sums(self, nats: torch.Tensor, batch: Batch) -> DomainSums:
        """Sums of one micro-batch. ``nats[B, T-1]`` without gradient."""

    def update(self, sums: DomainSums) -> None:
        """Once per optimizer step, with the sums of the GLOBAL batch, identical on all ranks; fixes the weights too."""

    def token_weights(self, domain_ids: torch.Tensor) -> torch.Tensor:
        """w[B]: the weight of every target token of a row, as `begin_step` or `update` last fixed it."""

    def expect_absences(
        self, presence_probabilities: np.ndarray, *, sampling_weights: np.ndarray | None = None
    ) -> None:
        """Told before the first step how likely (float64[k]) each domain is to be in a global batch.

        And, where they are not uniform, with which weights s (float64[k]) the rows are drawn.
        """

    def metrics(self) -> dict[str, float]:
        """Values worth a tracker's time, by name."""

    def default_sampling_weights(self, token_counts: Mapping[str, int]) -> DomainWeights:
        """What the loader draws with unless the user says otherwise."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""


def domain_sums(row_sums: torch.Tensor, domain_ids: torch.Tensor, *, num_domains: int) -> torch.Tensor:
    """float64[k]: ``row_sums[B]`` added up by domain."""
    total = torch.zeros(num_domains, dtype=torch.float64, device=row_sums.device)
    return total.index_add_(0, domain_ids, row_sums.double())


def count_targets(batch: Batch, *, num_domains: int) -> torch.Tensor:
    """float64[k]: target tokens of each domain in a micro-batch."""
    return domain_sums(target_mask(batch).sum(dim=1), batch["domain_ids"], num_domains=num_domains)


class TokenMean:
    """Plain training: the mean loss over the target tokens of the global batch, w_j = 1 / N_global."""

    needs_losses = False

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._weight_per_token = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Domain names in the order of the batch's ``domain_ids``."""
        return self._names

    def begin_step(self, token_counts: torch.Tensor) -> None:
        """Fix this step's 1 / N_global."""
        self._weight_per_token = 1.0 / max(float(token_counts.sum()), 1.0)

    def sums(self, nats: torch.Tensor, batch: Batch) -> DomainSums:
        """Token counts; the excess sums are zero."""
        counts = count_targets(batch, num_domains=len(self.names))
        return DomainSums(torch.zeros_like(counts), counts)

    def update(self, sums: DomainSums) -> None:
        """There is nothing to update."""
        self.begin_step(sums.token_counts)

    def token_weights(self, domain_ids: torch.Tensor) -> torch.Tensor:
        """w[B], the same for every row."""
        return torch.full(domain_ids.shape, self._weight_per_token, dtype=torch.float64, device=domain_ids.device)

    def expect_absences(
        self, presence_probabilities: np.ndarray, *, sampling_weights: np.ndarray | None = None
    ) -> None:
        """Of no consequence: every token weighs the same."""

    def metrics(self) -> dict[str, float]:
        """Nothing beyond what the trainer logs."""
        return {}

    def default_sampling_weights(self, token_counts: Mapping[str, int]) -> DomainWeights:
        """In proportion to the tokens."""
        return natural({name: token_counts[name] for name in self.names})

    def state_dict(self) -> dict[str, Any]:
        """No state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """No state."""


class ExcessLoss:
    """The proxy's objective (Xie et al. 2023, Eq. 1): Σ_i α_i · mean loss of domain i, α from Group DRO.

    As token weights: w_j = α_{d(j)} / N_{d(j)}. The gradient is of the unclipped loss; α is a constant in it, and the
    reference term, constant in the parameters, is left out.

    Args:
        reference: frozen causal LM over the same vocabulary; put into eval mode here. Not part of the proxy.
        names: domain names, in the order of the batch's ``domain_ids``.
        cache: where the reference's losses are read from, and stored when they are first computed.
        step_size: η of Group DRO.
        smoothing: c of Group DRO.
        target: what the adversary raises the weight of: ``excess``, max(ℓ_proxy − ℓ_reference, 0), the paper's; or
            one of its ablations (Table 7), ``hardest``, ℓ_proxy, and ``easiest``, −ℓ_reference.
        options: what is added to Group DRO beyond the paper.
        loss_normalisation: ``domain_mean``: the above; ``self_normalised``: upstream's w_j = α_{d(j)} / Σ_i α_i N_i, to
            compare results with it (see `doremi.methods.token_weights`).

    Raises:
        InputError: no such normalisation, or what `group_dro.init` refuses.
    """

    needs_losses = True

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
    ) -> None:
        check_choice("loss_normalisation", loss_normalisation, get_args(LossNormalisation))
        check_choice("target", target, get_args(Target))
        self.reference = reference.eval().requires_grad_(False)
        self._cache = cache
        self._target = target
        self.dro = group_dro.init(names, step_size=step_size, smoothing=smoothing, options=options)
        self._loss_normalisation = loss_normalisation
        self._presence = np.ones(len(self.names))
        self._sampling_weights = np.ones(len(self.names))  # uniform: the scale is of no consequence
        self._weight_per_token = np.zeros(len(self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """Domain names in the order of ``domain_ids``."""
        return self.dro.names

    @property
    def may_skip_reference(self) -> bool:
        """Whether there may be batches, of some ranks only, for which the reference is not called."""
        return self._cache is not None

    @property
    def average_weights(self) -> DomainWeights:
        """ᾱ: the domain weights that DoReMi answers with."""
        return DomainWeights(dict(zip(self.names, self.dro.average_weights.tolist(), strict=True)))

    def begin_step(self, token_counts: torch.Tensor) -> None:
        """Take the weights α_{t-1} of the step before, for ``weights_update: delayed``."""
        self._fix_token_weights(token_counts)

    def sums(self, nats: torch.Tensor, batch: Batch) -> DomainSums:
        """E and N of a micro-batch: the excess over the reference, clipped at 0 per token, then summed.

        Of the paper's ablations, the sum of what takes its place.
        """
        with torch.inference_mode():
            excess_rows = self._losses(nats, batch).sum(dim=1, dtype=torch.float64)
            excess_sums = domain_sums(excess_rows, batch["domain_ids"], num_domains=len(self.names))
        return DomainSums(excess_sums, count_targets(batch, num_domains=len(self.names)))

    def _losses(self, nats: torch.Tensor, batch: Batch) -> torch.Tensor:
        """[B, T-1]: what λ is the mean of."""
        if self._target == "hardest":
            return nats
        reference_nats = self._reference_nats(batch)
        if self._target == "easiest":
            return -reference_nats
        excess = (nats - reference_nats).clamp_(min=0)
        excess[:, 0] += 0 * reference_nats.sum(dim=1)  # an infinite one was clamped away; this makes it NaN
        return excess

    def update(self, sums: DomainSums) -> None:
        """One step of the adversary, then this step's w from α_t."""
        counts = sums.token_counts.round().to(torch.int64).cpu().numpy()
        self.dro = group_dro.update(self.dro, excess_sums=sums.excess_sums.cpu().numpy(), token_counts=counts)
        self._fix_token_weights(sums.token_counts)

    def token_weights(self, domain_ids: torch.Tensor) -> torch.Tensor:
        """w[B] of each row's domain."""
        return torch.from_numpy(self._weight_per_token).to(domain_ids.device)[domain_ids]

    def _fix_token_weights(self, token_counts: torch.Tensor) -> None:
        alpha, counts = self.dro.weights, token_counts.cpu().numpy()
        if self._loss_normalisation == "self_normalised":
            weights = token_weights.self_normalised(alpha, counts, sampling_weights=self._sampling_weights)
        else:
            weights = token_weights.domain_mean(alpha, counts, presence_probabilities=self._presence)
        self._weight_per_token = weights

    def _reference_nats(self, batch: Batch) -> torch.Tensor:
        """nats[B, T-1] of the reference.

        Where a row is missing in the cache, the whole micro-batch is computed: a row's losses may depend on the batch
        in the last bits, and must not depend on what happened to be cached. What is used is always what is stored.
        """
        if self._cache is None:
            return token_nats(self.reference, batch)
        domain_ids, rows = batch["domain_ids"].cpu().numpy(), batch["rows"].cpu().numpy()
        cached = self._cache.read(domain_ids, rows)
        missing = ~cached.is_there
        if missing.any():
            computed = token_nats(self.reference, batch).float().cpu().numpy()
            self._cache.write(domain_ids[missing], rows[missing], computed[missing])
            cached = self._cache.read(domain_ids, rows)
        return torch.from_numpy(cached.nats).to(batch["labels"].device)

    def expect_absences(
        self, presence_probabilities: np.ndarray, *, sampling_weights: np.ndarray | None = None
    ) -> None:
        """Divide each present domain's gradient by its probability of being present: Eq. 1 stays unbiased.

        Renormalising α over the present domains would not be: with α = 0.9 on one of 22 domains and 8 rows, it turns
        0.9 into 0.35.
        """
        self._presence = presence_probabilities
        if sampling_weights is not None:
            self._sampling_weights = sampling_weights

    def metrics(self) -> dict[str, float]:
        """α, ᾱ and λ of every domain."""
        columns = {
            "dro_weights": self.dro.weights,
            "average_weights": self.dro.average_weights,
            "excess_losses": self.dro.excess_losses,
        }
        return {
            f"{column}/{name}": float(value)
            for column, values in columns.items()
            for name, value in zip(self.names, values, strict=True)
        }

    def default_sampling_weights(self, token_counts: Mapping[str, int]) -> DomainWeights:
        """Uniform: the domains' importance is in the loss."""
        return uniform(self.names)

    def state_dict(self) -> dict[str, Any]:
        """The adversary's state; the reference is not part of it."""
        return self.dro.to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved adversary.

        Raises:
            InputError: it belongs to other domains or another order of them.
        """
        restored = group_dro.GroupDROState.from_dict(state)
        if restored.names != self.names:
            raise InputError(f"the saved Group DRO state is for domains {restored.names}, this run has {self.names}")
        self.dro = restored


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
