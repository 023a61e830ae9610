"""What a recipe may say of DoReMi."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from doremi.config import MAX_MODELS, Count, Number, Section, WholeNumber


class DoReMiOptions(Section):
    """Group DRO (Algorithm 1 of the paper), how often it is done, and what may be added to it."""

    rounds: Annotated[WholeNumber, Field(ge=1, le=MAX_MODELS)] | Literal["auto"] = Field(
        1,
        description="iterated DoReMi: each further round trains its reference on the weights of the one before; auto: "
        "until no weight changes by more than the tolerance",
    )
    max_rounds: Count = Field(5, ge=1, le=MAX_MODELS, description="of rounds: auto")
    tolerance: Number = Field(1e-3, gt=0, description="largest change of a weight in a round that counts as none")
    seeds: Count = Field(
        1,
        ge=1,
        le=MAX_MODELS,
        description="proxies to train, with as many seeds; the answer is the mean of theirs, with the spread of each "
        "weight. reference_cache: true saves most of the reference's share of the cost",
    )
    objective: Literal["excess", "hardest", "easiest"] = Field(
        "excess",
        description="what raises a domain's weight. excess: loss above the reference's; hardest (the proxy's loss) and "
        "easiest (minus the reference's) are the paper's ablations",
    )
    step_size: Number = Field(1.0, gt=0, description="η: how fast the adversary's weights move")
    smoothing: Number = Field(1e-3, ge=0, lt=1, description="c: share of uniform weights mixed in at every step")
    allow_absent_domains: bool = Field(
        False, description="allow a proxy batch smaller than the number of domains; unbiased, but noisier"
    )
    weights_update: Literal["exact", "delayed"] = Field(
        "exact",
        description="exact: each step's gradient uses the weights of that very step; with several micro-batches a "
        "process, they are all measured first, which adds a forward pass. delayed: it uses those of the step before, "
        "and adds nothing",
    )
    reference_cache: bool = Field(
        False,
        description="store the reference's losses on disk when they are first computed (4 bytes a token), so that "
        "later epochs, seeds and proxies read them",
    )
    reference_cache_dtype: Literal["float32", "float16"] = Field(
        "float32", description="float16 takes half the space and rounds each loss by at most 0.05 %"
    )
    step_size_schedule: Literal["constant", "inverse_sqrt"] = Field(
        "constant", description="beyond the paper. inverse_sqrt: the step size at step t is η / √t"
    )
    excess_ema: Number = Field(
        0.0, ge=0, lt=1, description="beyond the paper: share of the past in a running mean of the excess losses"
    )
    tail_fraction: Number = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the steps, at the end, whose weights are averaged; beyond the paper below 1",
    )
    min_weight: Number | dict[str, Number] = Field(
        0.0, description="beyond the paper: lower bound on every weight, or by domain"
    )
    max_weight: Number | dict[str, Number] = Field(
        1.0, description="beyond the paper: upper bound on every weight, or by domain"
    )
    max_main_epochs: Number | None = Field(
        None,
        gt=0,
        description="beyond the paper: upper bound on each weight such that the main run sees no domain more often",
    )
    projection: Literal["kl", "euclidean"] = Field("kl", description="how weights are brought within these bounds")
    prior: str | dict[str, Number] | None = Field(
        None,
        description="beyond the paper: weights that the adversary is pulled towards, named as `prior` is",
    )
    prior_pull: Number = Field(0.0, ge=0, lt=1, description="how strongly, at every step")
    loss_normalisation: Literal["domain_mean", "self_normalised"] = Field(
        "domain_mean",
        description="weight of a token in the proxy's loss. domain_mean: α_i / N_i, the paper's equation 1; "
        "self_normalised: upstream's α_i / Σ α N, with its average that includes α_0, to compare results with it",
    )
    reference_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the reference's parameters while it is only evaluated"
    )

    @model_validator(mode="after")
    def _prior_is_pulled_towards(self) -> DoReMiOptions:
        if (self.prior is None) != (self.prior_pull == 0):
            raise ValueError("prior and prior_pull go together")
        return self
