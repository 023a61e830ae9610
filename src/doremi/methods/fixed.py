"""Methods that ask for nothing: rules, published weights, files; and the control that is a rule on DoReMi's answer.

A policy that runs in the main model asks for nothing either.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from doremi.methods.doremi import DoReMi
from doremi.methods.protocol import Answer, Bench, Outcome, Policy, Run
from doremi.weights import rules, specs
from doremi.weights.specs import WeightsSpec

WITHOUT_FLOOR = "reference_without_floor"  # in recipes


@dataclass(frozen=True)
class Fixed:
    """Weights that a recipe names (`doremi.weights.specs`), over the domains of the experiment."""

    spec: WeightsSpec

    def ask(self, bench: Bench, done: Collection[Outcome]) -> Sequence[Run]:
        """Nothing is to be trained."""
        return []

    def answer(self, bench: Bench, done: Collection[Outcome]) -> Answer:
        """The weights; raises what `specs.resolve` does."""
        facts = {"method": self.spec if isinstance(self.spec, str) else "weights of the recipe"}
        return Answer(specs.resolve(self.spec, bench.setting, bench.names), facts=facts)


@dataclass(frozen=True)
class WithoutFloor:
    """The prior without the domains that DoReMi all but dropped (`rules.reference_without_floor`).

    It asks for what DoReMi asks for: equal runs are trained once.
    """

    doremi: DoReMi = field(default_factory=DoReMi)

    def ask(self, bench: Bench, done: Collection[Outcome]) -> Sequence[Run]:
        """As `DoReMi.ask`."""
        return self.doremi.ask(bench, done)

    def answer(self, bench: Bench, done: Collection[Outcome]) -> Answer:
        """The prior over the domains that DoReMi kept; raises what `DoReMi.answer` does."""
        kept = rules.reference_without_floor(bench.prior, self.doremi.answer(bench, done).weights)
        return Answer(kept, facts={"method": WITHOUT_FLOOR})


@dataclass(frozen=True)
class InPlace:
    """A policy that moves the weights of the main run itself, from the prior on."""

    policy: Policy

    def ask(self, bench: Bench, done: Collection[Outcome]) -> Sequence[Run]:
        """Nothing is to be trained before."""
        return []

    def answer(self, bench: Bench, done: Collection[Outcome]) -> Answer:
        """The policy."""
        return Answer(bench.prior, policy=self.policy, facts={"method": type(self.policy).__name__})
