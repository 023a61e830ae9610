"""What may be added to Group DRO beyond the paper. All of it is off by default; each option names its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import repeat
from typing import Any, Literal, get_args

import numpy as np

from doremi.errors import InputError, check_choice
from doremi.methods import projections

StepSizeSchedule = Literal["constant", "inverse_sqrt"]
Projection = Literal["kl", "euclidean"]


@dataclass(frozen=True)
class GroupDROOptions:
    """Changes of the update and of the average. Per-domain tuples are in the order of the state's names.

    Args:
        step_size_schedule: ``inverse_sqrt``: η_t = η / √t, which the convergence of stochastic mirror descent wants
            (Nemirovski et al. 2009, Section 2.3). The paper's is constant.
        excess_ema: β in [0, 1): the update uses λ̂_t = β λ̂_{t-1} + (1 − β) λ_t, λ̂_1 = λ_1; steadier where a batch has
            few rows of each domain (momentum, as in Polyak 1964).
        average_after: the answer averages α_t over t > this step (tail averaging, Rakhlin et al. 2012).
        minimum: lower bound on each weight, or None.
        maximum: upper bound on each weight, such as that of a number of epochs, or None.
        projection: how weights are brought within the bounds: the nearest in KL, as mirror descent does, or Euclidean.
        prior: weights that α is pulled towards, or None.
        prior_pull: ρ in [0, 1): α' = α_{t-1}^(1−ρ) · prior^ρ · exp(η λ): mirror descent on the loss with a penalty
            ρ/η · KL(α ‖ prior) (Duchi et al. 2010, composite mirror descent).

    Raises:
        InputError: a value out of its range.
    """

    step_size_schedule: StepSizeSchedule = "constant"
    excess_ema: float = 0.0
    average_after: int = 0
    minimum: tuple[float, ...] | None = None
    maximum: tuple[float, ...] | None = None
    projection: Projection = "kl"
    prior: tuple[float, ...] | None = None
    prior_pull: float = 0.0

    def __post_init__(self) -> None:
        check_choice("step_size_schedule", self.step_size_schedule, get_args(StepSizeSchedule))
        check_choice("projection", self.projection, get_args(Projection))
        for name in ("excess_ema", "prior_pull"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be in [0, 1)")
        if self.average_after < 0:
            raise InputError(f"average_after is {self.average_after}; it must be a step, 0 or more")
        if (self.prior is None) != (self.prior_pull == 0):
            raise InputError("prior and prior_pull go together: weights to pull towards, and how strongly")
        if self.prior is not None and min(self.prior) <= 0:
            raise InputError("the prior must be above 0 for every domain; a weight of 0 would pull it to 0 at once")

    def step_size(self, step_size: float, *, step: int) -> float:
        """η_t of step t, the first being 1."""
        return step_size / step**0.5 if self.step_size_schedule == "inverse_sqrt" else step_size

    def smooth(self, excess_losses: np.ndarray, *, before: np.ndarray, step: int) -> np.ndarray:
        """λ̂_t, float64[k], from λ_t and λ̂_{t-1}."""
        beta = self.excess_ema if step > 1 else 0.0
        return beta * before + (1 - beta) * excess_losses

    def pull(self, log_weights: np.ndarray) -> np.ndarray:
        """log(α^(1−ρ) · prior^ρ), float64[k]."""
        if self.prior is None:
            return log_weights
        return (1 - self.prior_pull) * log_weights + self.prior_pull * np.log(np.array(self.prior))

    def bound(self, weights: np.ndarray) -> np.ndarray:
        """The weights within the bounds, float64[k], sum 1."""
        if self.minimum is None and self.maximum is None:
            return weights
        k = len(weights)
        lower = np.zeros(k) if self.minimum is None else np.array(self.minimum)
        upper = np.ones(k) if self.maximum is None else np.array(self.maximum)
        project = projections.kl if self.projection == "kl" else projections.euclidean
        return project(weights, lower=lower, upper=upper)

    def check(self, names: Sequence[str]) -> None:
        """Refuse options that do not fit these domains.

        Raises:
            InputError: another number of domains, or bounds that no weights meet.
        """
        for name in ("minimum", "maximum", "prior"):
            values = getattr(self, name)
            if values is not None and len(values) != len(names):
                raise InputError(f"{name} has {len(values)} values for {len(names)} domains")
        for name, lower, upper in zip(names, self.minimum or repeat(0.0), self.maximum or repeat(1.0), strict=False):
            if not 0 <= lower <= upper <= 1:
                raise InputError(
                    f"the weight of {name!r} has a minimum of {lower:g} and a maximum of {upper:g}; they must be "
                    "between 0 and 1, the minimum not above the maximum"
                )
        self.bound(np.full(len(names), 1 / len(names)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: only what differs from the defaults."""
        return {key: value for key, value in asdict(self).items() if value != _DEFAULTS[key]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> GroupDROOptions:
        """The options that `to_dict` wrote."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}
        return cls(**values)


_DEFAULTS = {field.name: field.default for field in fields(GroupDROOptions)}
