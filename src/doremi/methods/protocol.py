"""What a method of finding a mixture is, and what a policy is that moves one while a model trains.

A method is a pure function of finished runs: it asks for models to be trained, and when it has asked for enough it
answers. A policy lives inside one run: it sees that run's statistics and moves weights while the run trains. Whoever
trains drives them alike, ``while runs := method.ask(bench, done): done += train(runs)``, and knows none by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from doremi.errors import InputError
from doremi.methods.states import dump as dump
from doremi.methods.states import restore as restore
from doremi.methods.token_weights import LossNormalisation
from doremi.weights import DomainWeights
from doremi.weights.alarm import Alarm
from doremi.weights.specs import Setting

if TYPE_CHECKING:
    from doremi.evidence.paired_documents import DocumentLosses

Size = Literal["reference", "proxy", "main"]  # which of the recipe's models, with its training settings
Sees = Literal["losses", "excess", "reference", "held_out", "sketches"]
When = Literal["before", "after"]


@dataclass(frozen=True)
class Bench:
    """All that a method may know before a model is trained. Mappings are by domain unless they say otherwise."""

    names: tuple[str, ...]
    tokens: Mapping[str, int]  # to train on
    prior: DomainWeights  # the weights to start from and to stay near
    sets: tuple[str, ...]  # evaluation sets: the held-out text of each domain, and text that is not trained on
    target: Mapping[str, float] | Literal["worst"]  # what is to be low: a mean over sets, or the worst of them
    main_tokens: int  # R: tokens that the main model is trained on
    steps: Mapping[Size, int]  # optimizer steps of a run of each size
    rows: Mapping[Size, int]  # in a global batch of each size
    seed: int  # the first one
    has_reference: bool  # whether the recipe names a trained reference, so that none is to be asked for
    setting: Setting  # what rules are worked out from
    upper: Mapping[str, float] = field(default_factory=dict)
    lower: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One model to train. Equal runs are trained once, whoever asks for them.

    Args:
        size: which of the recipe's models, with its training settings.
        seed: fixes initial parameters and data order.
        weights: what rows are sampled with; of a run with a policy what it begins with.
        policy: what moves weights while the run trains.
        reference: whose losses the policy needs; None: those of no run, or of the trained model that the recipe names.
        steps: optimizer steps, where not those of the recipe.
        scoring: how the reference is evaluated, where there is one.
        keep: whether the trained model is kept. Without it the outcome alone is left, scored by document: some
            kilobytes a run instead of a model, which is what a swarm of small ones needs. Nothing can begin from it.
        label: what messages and folders call it. Not part of what is trained: two runs that differ in it alone are
            equal.
    """

    size: Size
    seed: int
    weights: DomainWeights
    policy: Policy | None = None
    reference: Run | None = None
    steps: int | None = None
    scoring: Scoring | None = None
    keep: bool = True
    label: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Refuse a reference of which there would be no model.

        Raises:
            InputError: it is not kept.
        """
        if self.reference is not None and not self.reference.keep:
            raise InputError(
                f"run {self.label or self.size!r}: its reference {self.reference.label or self.reference.size!r} is "
                "not kept, so that there is no model to score with; ask for the reference with keep=True"
            )


@dataclass(frozen=True)
class Scoring:
    """How the reference of a run is evaluated: in which precision, and whether its losses are kept on disk."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    cache: Literal["none", "float32", "float16"] = "none"


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves.

    ``failure`` says why there are no losses; such a run is not trained again. ``state`` is what its policy ended with.
    ``history`` is the trainer's log, an entry for each logged step.
    """

    run: Run
    nats: Mapping[str, float] = field(default_factory=dict)  # per target token, by set; empty if it was not scored
    documents: Mapping[str, DocumentLosses] = field(default_factory=dict)  # the same by document
    realised: Mapping[str, int] = field(default_factory=dict)  # rows that were delivered, by domain
    state: Any = None
    history: Sequence[Mapping[str, Any]] = ()
    failure: str | None = None


@dataclass(frozen=True)
class Answer:
    """Fixed weights, or a policy to train the main model with; ``facts`` are JSON for the report, under its own keys.

    ``weights`` of a policy is what the run begins with; its average is known once it is trained.
    """

    weights: DomainWeights
    policy: Policy | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    alarms: Sequence[Alarm] = ()


@runtime_checkable
class Method(Protocol):
    """A way to answer "how much of each domain?"."""

    def ask(self, bench: Bench, done: Collection[Outcome]) -> Sequence[Run]:
        """Runs to train next, none of them in ``done``; empty: enough is known.

        Depends on the set of outcomes, never on their order.
        """

    def answer(self, bench: Bench, done: Collection[Outcome]) -> Answer:
        """The answer, once `ask` asks for nothing.

        Raises:
            RunFailedError: a run that it cannot do without failed.
        """


class Seen(NamedTuple):
    """Statistics of one optimizer step: sums over the GLOBAL batch, the same on all ranks; to be divided once, last.

    ``sums`` are nats over the target tokens of each domain: of the loss, of its excess over the reference's clipped at
    0 per token, or of the reference's loss, as `Policy.sees` says.
    """

    step: int  # the first is 1
    sums: np.ndarray  # float64[k]
    token_counts: np.ndarray  # int64[k]: target tokens that were summed over; 0 where the domain was absent
    row_counts: np.ndarray  # int64[k]: rows of each domain in the batch
    held_out: Mapping[str, float] | None = None  # nats per token by set, at the steps that score them
    sketches: np.ndarray | None = None  # float64[k, 2, r]: of the mean gradient of each half of a domain's rows


@runtime_checkable
class Policy(Protocol):
    """Weights that move while a model trains: float64 NumPy; no torch, no process group, no logger.

    To be inherited from: a policy defines ``sees``, ``when``, `init`, `update`, and one of the two kinds of weights.
    ``sees`` names the statistics it needs. ``when`` says whether it needs them before the backward pass of the same
    step, so that its loss weights are those of this very step, or after it, which costs no forward pass.
    A state is a dataclass of names, numbers and arrays; it is stored with checkpoints (`dump`, `restore`).
    """

    @property
    def sees(self) -> Sees:
        """The statistics that `update` is given."""

    @property
    def when(self) -> When:
        """Before or after the backward pass."""

    @property
    def loss_normalisation(self) -> LossNormalisation:
        """What a token weighs, given `loss_weights`; see `doremi.methods.token_weights`."""
        return "domain_mean"

    @property
    def allow_absent_domains(self) -> bool:
        """Whether a batch may lack a domain that has a loss weight: unbiased, but noisier."""
        return False

    def init(self, bench: Bench) -> Any:
        """The state before the first step."""

    def update(self, state: Any, seen: Seen) -> Any:
        """The state after one step; ``state`` itself is not changed."""

    def sampling_weights(self, state: Any) -> np.ndarray | None:
        """float64[k] for the very next global batch; None: the run's own weights throughout."""
        return None

    def loss_weights(self, state: Any) -> np.ndarray | None:
        """float64[k]: each domain's share of the loss; None, at every step: every token weighs the same."""
        return None

    def metrics(self, state: Any) -> dict[str, np.ndarray]:
        """What is logged, float64[k] each, by the name of the quantity; default: the weights that move."""
        moved = {"sampling_weights": self.sampling_weights(state), "loss_weights": self.loss_weights(state)}
        return {name: values for name, values in moved.items() if values is not None}


def content(part: Any) -> Any:
    """JSON-able content of a policy or another frozen dataclass, its class included: equal content, equal parts."""
    if is_dataclass(part) and not isinstance(part, type):
        kind = f"{type(part).__module__}.{type(part).__qualname__}"
        return {"class": kind} | {each.name: content(getattr(part, each.name)) for each in fields(part)}
    if isinstance(part, Mapping):
        return {str(key): content(value) for key, value in part.items()}
    if isinstance(part, tuple | list):
        return [content(value) for value in part]
    if isinstance(part, np.ndarray | np.generic):
        return part.tolist()
    return part
