"""Group DRO on excess losses: the adversary of DoReMi (Xie et al. 2023, Algorithm 1), in float64 NumPy.

One step, with the symbols of the paper and the names used here::

    λ_i = E_i / N_i                            excess_losses   = excess_sums / token_counts
    α'  = α_{t-1} · exp(η λ)                   η               = step_size
    α_t = (1 − c) · α' / Σ α' + c / k          weights,      c = smoothing
    ᾱ   = (1/T) Σ_{t=1..T} α_t                 average_weights

E_i sums max(ℓ_proxy − ℓ_reference, 0) over the target tokens of domain i in the global batch, N_i counts all of
those tokens. Differences from upstream's code, each of which changes the numbers:

1. The excess is clipped per token, before it is summed; N_i counts every target token, not the positive ones.
2. α accumulates over steps and is the same on all ranks; it is updated from the sums of the whole global batch.
3. The average leaves out α_0 and divides by T. (Upstream includes α_0 and divides by T + 1:
   `GroupDROState.average_weights_with_initial`.)
4. A domain without target tokens in the batch keeps its latest λ; one never seen takes the mean of the seen.
   (Upstream starts from the logarithm of the vocabulary size, and gets NaN from a domain that is all masked.)

What may be added beyond the paper is in `doremi.methods.group_dro_options`; by default nothing is.
`GroupDRO` is the same as a policy, for whoever trains by the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from doremi.errors import InputError, NotFiniteError, check_choice
from doremi.methods.group_dro_options import GroupDROOptions
from doremi.methods.protocol import Bench, Policy, Seen, Sees, When
from doremi.methods.token_weights import LossNormalisation

Target = Literal["excess", "hardest", "easiest"]
WeightsUpdate = Literal["exact", "delayed"]

_ARRAYS = ("weights", "weights_sum", "excess_losses", "smoothed_losses")


@dataclass(frozen=True)
class GroupDROState:
    """The adversary after ``num_updates`` steps. Arrays are float64[k] in the order of ``names``, never written to."""

    names: tuple[str, ...]
    step_size: float
    smoothing: float
    num_updates: int
    weights: np.ndarray  # α_t
    weights_sum: np.ndarray  # Σ α_t over the steps that the answer averages: all of them, unless options say otherwise
    excess_losses: np.ndarray  # λ_t of the latest update, nats per token; 0 before the first
    smoothed_losses: np.ndarray  # λ̂_t, what the update used: λ_t, unless options say otherwise
    seen: np.ndarray  # bool[k]: had target tokens in at least one update
    options: GroupDROOptions = field(default_factory=GroupDROOptions)

    @property
    def average_weights(self) -> np.ndarray:
        """ᾱ, float64[k]: the answer of DoReMi. Before the first step that it averages, the latest weights."""
        num_averaged = self.num_updates - self.options.average_after
        return self.weights_sum / num_averaged if num_averaged > 0 else self.weights

    @property
    def average_weights_with_initial(self) -> np.ndarray:
        """(α_0 + Σ_{t=1..T} α_t) / (T + 1), float64[k]: what upstream answers with, to compare results with it."""
        return (1.0 / len(self.names) + self.weights_sum) / (self.num_updates + 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; floats survive the round trip through JSON exactly."""
        return {
            "names": list(self.names),
            "step_size": self.step_size,
            "smoothing": self.smoothing,
            "num_updates": self.num_updates,
            "weights": self.weights.tolist(),
            "weights_sum": self.weights_sum.tolist(),
            "excess_losses": self.excess_losses.tolist(),
            "smoothed_losses": self.smoothed_losses.tolist(),
            "options": self.options.to_dict(),
            "seen": self.seen.tolist(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> GroupDROState:
        """The state that `to_dict` wrote.

        Raises:
            InputError: a key is missing, or an array has not one value per name.
        """
        try:
            arrays = {key: np.array(content[key], np.float64) for key in _ARRAYS}
            state = cls(
                names=tuple(content["names"]),
                step_size=float(content["step_size"]),
                smoothing=float(content["smoothing"]),
                num_updates=int(content["num_updates"]),
                seen=np.array(content["seen"], bool),
                options=GroupDROOptions.from_dict(content["options"]),
                **arrays,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not a saved Group DRO state: {error!r}") from None
        for key in (*arrays, "seen"):
            if getattr(state, key).shape != (len(state.names),):
                raise InputError(f"not a saved Group DRO state: {key} has not {len(state.names)} values")
        return state


@dataclass(frozen=True)
class GroupDRO(Policy):
    """Loss weights α that follow the excess loss of each domain.

    Args:
        step_size: η, per nat of excess loss.
        smoothing: c, the share of uniform weights mixed in at every step.
        options: what is added beyond the paper; its tuples are in the order of the domains.
        target: what the adversary raises the weight of: ``excess``, max(ℓ_proxy − ℓ_reference, 0), the paper's; or
            one of its ablations (Table 7), ``hardest``, ℓ_proxy, and ``easiest``, −ℓ_reference.
        loss_normalisation: ``domain_mean``: w_j = α_{d(j)} / N_{d(j)}, Eq. 1; ``self_normalised``: upstream's
            w_j = α_{d(j)} / Σ_i α_i N_i, to compare results with it (see `doremi.methods.token_weights`).
        weights_update: ``exact``: a step's gradient uses α_t of this very step, as in Algorithm 1. ``delayed``: it uses
            α_{t-1}, and no forward pass is added.
        allow_absent_domains: let batches miss domains; the gradient stays unbiased, at a higher variance.

    Raises:
        InputError: no such target, normalisation or update.
    """

    step_size: float = 1.0
    smoothing: float = 1e-3
    options: GroupDROOptions = field(default_factory=GroupDROOptions)
    target: Target = "excess"
    loss_normalisation: LossNormalisation = "domain_mean"
    weights_update: WeightsUpdate = "exact"
    allow_absent_domains: bool = False

    def __post_init__(self) -> None:
        check_choice("loss_normalisation", self.loss_normalisation, get_args(LossNormalisation))
        check_choice("target", self.target, get_args(Target))
        check_choice("weights_update", self.weights_update, get_args(WeightsUpdate))

    @property
    def sees(self) -> Sees:
        """The excess, or what the ablations put in its place."""
        sees: dict[Target, Sees] = {"excess": "excess", "hardest": "losses", "easiest": "reference"}
        return sees[self.target]

    @property
    def when(self) -> When:
        """Before the backward pass where α_t is to be in its gradient."""
        return "before" if self.weights_update == "exact" else "after"

    def init(self, bench: Bench) -> GroupDROState:
        """Uniform weights; see the function `init`, also for its errors."""
        return init(bench.names, step_size=self.step_size, smoothing=self.smoothing, options=self.options)

    def update(self, state: GroupDROState, seen: Seen) -> GroupDROState:
        """One step of the adversary; see the function `update`, also for its errors."""
        sums = -seen.sums if self.target == "easiest" else seen.sums
        return update(state, excess_sums=sums, token_counts=seen.token_counts)

    def loss_weights(self, state: GroupDROState) -> np.ndarray:
        """α, float64[k]."""
        return state.weights

    def metrics(self, state: GroupDROState) -> dict[str, np.ndarray]:
        """α, ᾱ and λ."""
        return {
            "dro_weights": state.weights,
            "average_weights": state.average_weights,
            "excess_losses": state.excess_losses,
        }


def init(
    names: Sequence[str],
    *,
    step_size: float = 1.0,
    smoothing: float = 1e-3,
    options: GroupDROOptions | None = None,
) -> GroupDROState:
    """The adversary before the first step: uniform weights α_0 = 1/k.

    Args:
        names: the k domain names; their order is the order of every array.
        step_size: η > 0, per nat of excess loss.
        smoothing: c in [0, 1), the share of uniform weights mixed in at every step.
        options: what is added beyond the paper; default: nothing.

    Raises:
        InputError: no names, a name twice, η or c out of range, or options that do not fit the domains.
    """
    k = len(names)
    if k == 0 or len(set(names)) != k:
        raise InputError(f"Group DRO needs at least one domain and distinct names, got {list(names)}")
    if not (np.isfinite(step_size) and step_size > 0):
        raise InputError(f"step_size is {step_size}; it must be finite and > 0 (the paper uses 1)")
    if not 0 <= smoothing < 1:
        raise InputError(f"smoothing is {smoothing}; it must be in [0, 1) (the paper uses 1e-3)")
    options = options or GroupDROOptions()
    options.check(names)
    return GroupDROState(
        names=tuple(names),
        step_size=float(step_size),
        smoothing=float(smoothing),
        num_updates=0,
        weights=np.full(k, 1.0 / k),
        weights_sum=np.zeros(k),
        excess_losses=np.zeros(k),
        smoothed_losses=np.zeros(k),
        seen=np.zeros(k, bool),
        options=options,
    )


def update(state: GroupDROState, *, excess_sums: ArrayLike, token_counts: ArrayLike) -> GroupDROState:
    """One step of the adversary; ``state`` itself is not changed.

    Args:
        state: the adversary after step t − 1.
        excess_sums: E, float64[k], nats: sums over the global batch (all micro-batches, all ranks). Of the excess they
            are >= 0; of another objective, such as the paper's ablations, they may not be.
        token_counts: N, int[k]: target tokens that E was summed over; 0 where the domain was absent.

    Raises:
        NotFiniteError: a sum or a new weight is not finite; names step, domain and value.
        ValueError: wrong shapes, a negative count, or an excess without tokens.
    """
    sums = np.asarray(excess_sums, np.float64)
    counts = np.asarray(token_counts, np.int64)
    _check_sums(state, sums, counts)
    step = state.num_updates + 1
    excess_losses, seen = _excess_losses(state, sums, counts)
    smoothed_losses = state.options.smooth(excess_losses, before=state.smoothed_losses, step=step)
    weights = _step(state, smoothed_losses, step_size=state.options.step_size(state.step_size, step=step))
    return replace(
        state,
        num_updates=step,
        weights=weights,
        weights_sum=state.weights_sum + weights if step > state.options.average_after else state.weights_sum,
        excess_losses=excess_losses,
        smoothed_losses=smoothed_losses,
        seen=seen,
    )


def _excess_losses(state: GroupDROState, sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """λ (float64[k]) with absent domains filled in, and which domains have been seen by now (bool[k])."""
    present = counts > 0
    seen = state.seen | present
    latest = np.where(present, sums / np.maximum(counts, 1), state.excess_losses)
    mean_of_seen = latest[seen].mean() if seen.any() else 0.0
    return np.where(seen, latest, mean_of_seen), seen


def _step(state: GroupDROState, losses: np.ndarray, *, step_size: float) -> np.ndarray:
    """α_t from α_{t-1} and λ_t, in log space: exp(ηλ) alone overflows from ηλ = 710 on."""
    with np.errstate(divide="ignore"):  # with c = 0 a weight may have underflown to exactly 0, which it then stays
        log_weights = state.options.pull(np.log(state.weights)) + step_size * losses
    scaled = np.exp(log_weights - log_weights.max())
    weights = (1 - state.smoothing) * scaled / scaled.sum() + state.smoothing / len(state.names)
    weights = state.options.bound(weights)
    _check_finite(state, "weight", weights)
    return weights


def _check_sums(state: GroupDROState, sums: np.ndarray, counts: np.ndarray) -> None:
    k = len(state.names)
    if sums.shape != (k,) or counts.shape != (k,):
        raise ValueError(f"expected {k} excess sums and token counts, got shapes {sums.shape} and {counts.shape}")
    _check_finite(state, "excess loss sum", sums)
    if (counts < 0).any() or (sums[counts == 0] != 0).any():
        raise ValueError("token counts must be >= 0, and 0 tokens must have an excess of 0")


def _check_finite(state: GroupDROState, quantity: str, values: np.ndarray) -> None:
    for name, value in zip(state.names, values, strict=True):
        if not np.isfinite(value):
            raise NotFiniteError(
                f"step {state.num_updates + 1}: {quantity} of domain {name!r} is {value}; stopped before the "
                "optimizer step. Lower the learning rate, or check this domain's data"
            )
