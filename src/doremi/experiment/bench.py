"""What methods may know of an experiment before a model is trained."""

from __future__ import annotations

import math

from doremi.config import RUNS
from doremi.corpus import TokenStore
from doremi.corpus.config import Split
from doremi.evidence import targets
from doremi.evidence.targets import SetSizes
from doremi.experiment.recipe import Recipe
from doremi.methods.protocol import Bench
from doremi.weights import specs
from doremi.weights.specs import Setting, Sizes


def make(recipe: Recipe, store: Sizes, text: SetSizes) -> Bench:
    """The bench of a recipe over the domains of its corpus.

    Args:
        recipe: its prior, target and seed.
        store: what rules ask of the corpus.
        text: what the target has to know of its evaluation sets.

    Raises:
        InputError: the prior or the target does not fit the corpus.
    """
    setting = weights_setting(recipe, store)
    prior = specs.resolve(recipe.prior, setting, store.names)
    training = {run: recipe.training.for_run(run) for run in RUNS}
    return Bench(
        names=prior.names,
        tokens={name: store.num_tokens(name) for name in prior.names},
        prior=prior,
        sets=(*prior.names, *text.sets),
        target=targets.parse(recipe.target, prior=prior, sizes=text).on_nats(),
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


def set_sizes(store: TokenStore) -> SetSizes:
    """Bytes per token of the held-out text of each domain and of each evaluation set; NaN where bytes are not known."""
    texts: list[tuple[str, Split]] = [*((name, "held_out") for name in store.names), *((n, "set") for n in store.sets)]
    counts = {name: (store.num_bytes(name, split=split), store.num_tokens(name, split=split)) for name, split in texts}
    per_token = {name: size / tokens if size and tokens else math.nan for name, (size, tokens) in counts.items()}
    return SetSizes(per_token, store.sets)
