"""What a recipe will train: which models, how many of each, on how many tokens, with how many FLOPs.

The search is what the methods ask for (`doremi.methods.imagined`); the verification trains models on their answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from doremi.config import RunName
from doremi.experiment import arms, flops
from doremi.experiment.stored_losses import StoredLosses
from doremi.methods import imagined
from doremi.methods.protocol import Answer, Run
from doremi.models.size import ModelSize
from doremi.planning.inputs import Inputs
from doremi.planning.rows import expected_rows
from doremi.training import arguments

Part = Literal["search", "verification"]


class Kind(NamedTuple):
    """What the time of a step depends on. Sizes with the same model and settings are one."""

    model: RunName
    policy: str  # its class, what it sees and when; empty: none


@dataclass(frozen=True)
class Stage:
    """Models that are trained alike, but for their seeds or, over rounds, their weights."""

    name: str  # of a run, without round and seed; or of a method
    part: Part
    model: RunName
    kind: Kind
    run: Run  # one of them
    num_models: int
    size: ModelSize
    num_rows: int  # that one model is trained on
    num_tokens: int
    flops: float  # of all the models; NaN: not known
    rows: Mapping[str, float] | None  # that the first model draws of each domain; None: not known yet
    epochs: Mapping[str, float] | None
    also: tuple[str, ...] = ()  # methods whose models are some of these
    num_compared: int = 0  # models that verify an answer


@dataclass
class Planner:
    """Adds up runs in the order in which they are trained; what is trained once is counted once."""

    inputs: Inputs
    losses: dict[str, StoredLosses] = field(default_factory=dict)  # by reference
    stages: dict[tuple[Part, str, Kind], Stage] = field(default_factory=dict)
    stage_of: dict[str, tuple[Part, str, Kind]] = field(default_factory=dict)  # by key of a run

    def search(self) -> None:
        """All that the methods ask for."""
        for item in self.inputs.recipe.named_methods:
            for run in imagined.asked(item.method, self.inputs.bench, known=self.inputs.known):
                self._add("search", _head(run), run)

    def verify(self) -> None:
        """The models of each answer; answers that are not known yet are taken to differ."""
        found: list[tuple[str, Answer]] = []
        for item in self.inputs.recipe.named_methods:
            answer = imagined.known_answer(item.method, self.inputs.bench, known=self.inputs.known)
            same = next((label for label, other in found if answer and arms.train_the_same(other, answer)), None)
            if answer is None:
                self._add_unknown(item.label)
            elif same is not None:
                self._share(item.label, of=same)
            else:
                found.append((item.label, answer))
                for run in arms.asked(self.inputs.recipe, item.label, answer).values():
                    self._add("verification", item.label, run)

    def _add(self, part: Part, name: str, run: Run) -> None:
        """One more model of a stage, unless it is trained already."""
        key, place = self.inputs.key(run), (part, name, _kind(self.inputs, run))
        is_compared = part == "verification"
        if place not in self.stages:
            self.stages[place] = self._stage(part, name, run)
        if key not in self.stage_of:
            self.stage_of[key] = place
            old = self.stages[place]
            self.stages[place] = replace(
                old,
                num_models=old.num_models + 1,
                flops=old.flops + self._flops(run),
                num_compared=old.num_compared + is_compared,
            )
        elif is_compared:
            self._share_run(name, self.stage_of[key])

    def _share_run(self, name: str, place: tuple[Part, str, Kind]) -> None:
        old = self.stages[place]
        also = old.also if name in (*old.also, old.name) else (*old.also, name)
        self.stages[place] = replace(old, also=also, num_compared=old.num_compared + 1)

    def _share(self, name: str, *, of: str) -> None:
        """A method with the same answer as an earlier one."""
        for place, stage in self.stages.items():
            if of in stage.also or (stage.part, stage.name) == ("verification", of):
                self.stages[place] = replace(stage, also=(*stage.also, name))

    def _add_unknown(self, label: str) -> None:
        """The models of an answer that is not known."""
        verify, bench = self.inputs.recipe.verify, self.inputs.bench
        run = Run(verify.size, bench.seed, bench.prior, label=label)
        stage = self._stage("verification", label, run)
        self.stages["verification", label, stage.kind] = replace(
            stage,
            num_models=verify.seeds,
            flops=verify.seeds * self._flops(run),
            rows=None,
            epochs=None,
            num_compared=verify.seeds,
        )

    def _stage(self, part: Part, name: str, run: Run) -> Stage:
        """A stage of runs like this one, without a model yet."""
        config, size = self.inputs.training_of(run), self.inputs.sizes[run.size]
        rows = drawn_rows(self.inputs, run)
        epochs = rows and {name: count / max(_available(self.inputs, run, name), 1) for name, count in rows.items()}
        kind, num_rows = _kind(self.inputs, run), config.steps * config.global_batch_size
        return Stage(name, part, run.size, kind, run, 0, size, num_rows, config.num_tokens, 0.0, rows, epochs)

    def _flops(self, run: Run) -> float:
        config = self.inputs.training_of(run)
        _, num_micro_batches = arguments.split_batch(config, world_size=self.inputs.num_devices)
        num_rows = config.steps * config.global_batch_size
        passes = flops.expected_passes(
            run.policy, num_rows=num_rows, num_micro_batches=num_micro_batches, num_scored=self._num_scored(run)
        )
        size, reference = self.inputs.sizes[run.size], self.inputs.sizes[self.inputs.reference_size(run) or "reference"]
        return flops.flops(passes, size, reference, sequence_length=config.sequence_length)

    def _num_scored(self, run: Run) -> float | None:
        """Rows whose reference losses are not stored yet; None: they are not stored."""
        if run.scoring is None or run.scoring.cache == "none" or self.inputs.reference_size(run) is None:
            return None
        key = "" if run.reference is None else self.inputs.key(run.reference)
        config = self.inputs.training_of(run)
        new = StoredLosses(config.sequence_length - 1, run.scoring.cache)
        losses = self.losses.setdefault(f"{run.scoring} {config.sequence_length} {key}", new)
        rows = drawn_rows(self.inputs, run)
        if rows is None:
            return losses.ask_for_unknown(config.steps * config.global_batch_size)
        return losses.ask(rows, seed=run.seed, available={name: _available(self.inputs, run, name) for name in rows})


class Planned(NamedTuple):
    """All stages, in the order in which they are trained."""

    stages: list[Stage]
    losses: list[StoredLosses]  # of references, on disk
    is_bound: bool  # the search may end sooner than planned


def plan(inputs: Inputs) -> Planned:
    """The stages of the search, then those of the verification; raises what the methods do."""
    planner = Planner(inputs)
    planner.search()
    planner.verify()
    is_bound = any(
        imagined.may_end_sooner(item.method, inputs.bench, known=inputs.known) for item in inputs.recipe.named_methods
    )
    return Planned([*planner.stages.values()], [*planner.losses.values()], is_bound)


def drawn_rows(inputs: Inputs, run: Run) -> dict[str, float] | None:
    """Rows of each domain that a run draws; None: not known, for want of a corpus or since a policy moves weights."""
    moves = run.policy is not None and run.policy.sampling_weights(run.policy.init(inputs.bench)) is not None
    if inputs.store is None or moves:
        return None
    config = inputs.training_of(run)
    available = {name: _available(inputs, run, name) for name in run.weights}
    num_rows, repetition = config.steps * config.global_batch_size, config.mixture().repetition
    return expected_rows(run.weights, num_rows=num_rows, available=available, repetition=repetition)


def total_flops(stages: Iterable[Stage], part: Part) -> float:
    """FLOPs of all models of the search, or of the verification."""
    return sum(stage.flops for stage in stages if stage.part == part)


def _available(inputs: Inputs, run: Run, name: str) -> int:
    assert inputs.store is not None
    return inputs.store.num_sequences(name, inputs.training_of(run).sequence_length)


def _head(run: Run) -> str:
    """What a run is called, without its round and seed."""
    return run.label.partition(",")[0] or run.size


def _kind(inputs: Inputs, run: Run) -> Kind:
    policy = run.policy
    described = "" if policy is None else f"{type(policy).__name__} {policy.sees} {policy.when} {run.steps or ''}"
    return Kind(inputs.alike[run.size], described.strip())
