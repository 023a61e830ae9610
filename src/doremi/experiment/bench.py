"""What methods may know of an experiment before a model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from doremi.config import RUNS
from doremi.experiment.recipe import Recipe
from doremi.methods.protocol import Bench
from doremi.weights import DomainWeights, specs
from doremi.weights.specs import Setting, Sizes


def make(recipe: Recipe, store: Sizes) -> Bench:
    """The bench of a recipe over the domains of its corpus.

    Raises:
        InputError: the prior does not fit the corpus.
    """
    setting = weights_setting(recipe, store)
    prior = specs.resolve(recipe.prior, setting, store.names)
    training = {run: recipe.training.for_run(run) for run in RUNS}
    return Bench(
        names=prior.names,
        tokens={name: store.num_tokens(name) for name in prior.names},
        prior=prior,
        sets=prior.names,
        target=_target(recipe, prior),
        main_tokens=training["main"].num_tokens,
        steps={run: settings.steps for run, settings in training.items()},
        rows={run: settings.global_batch_size for run, settings in training.items()},
        seed=recipe.seed,
        has_reference=recipe.models.reference.init == "trained",
        setting=setting,
    )


def weights_setting(recipe: Recipe, store: Sizes) -> Setting:
    """What weights by rule are worked out from."""
    main = recipe.training.for_run("main")
    return Setting(
        store=store,
        sequence_length=main.sequence_length,
        num_tokens=main.num_tokens,
        max_epochs=main.max_epochs,
        epochs=recipe.epochs,
    )


def _target(recipe: Recipe, prior: DomainWeights) -> Mapping[str, float] | Literal["worst"]:
    if isinstance(recipe.target, dict):
        return dict(recipe.target)
    if recipe.target == "reference":
        return dict(prior)
    return "worst" if recipe.target == "worst" else dict.fromkeys(prior.names, 1 / len(prior))
