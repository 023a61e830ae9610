"""An experiment: a recipe, its run directory and its prepared corpus, with everything checked that can be checked
before hours of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from doremi import launch
from doremi.config import RUNS, RunName
from doremi.corpus import TokenStore, prepare
from doremi.corpus.preparing.job import config_digest, finished
from doremi.corpus.storing import in_place, manifest
from doremi.corpus.tokenizing import tokenizers
from doremi.errors import InputError, RunFailedError
from doremi.experiment import named_domains, preflight
from doremi.experiment.recipe import Recipe
from doremi.experiment.run_directory import RunDirectory
from doremi.experiment.runs import BASELINE, MAIN
from doremi.methods import adversary
from doremi.methods.group_dro_options import GroupDROOptions
from doremi.weights import DomainWeights, specs
from doremi.weights.specs import Setting, WeightsSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Experiment:
    """A recipe, its run directory, and its corpus once that is prepared."""

    recipe: Recipe
    directory: RunDirectory
    store: TokenStore
    reference_weights: DomainWeights  # over the domains of the experiment, in the corpus' order

    @property
    def names(self) -> tuple[str, ...]:
        """The domains of the experiment: those with a reference weight above 0."""
        return self.reference_weights.names

    def adversary_options(self) -> GroupDROOptions:
        """What the recipe adds to Group DRO."""
        config = self.recipe.reweighting
        return adversary.options(
            config,
            {name: self.store.num_tokens(name) for name in self.names},
            num_steps=self.recipe.training.for_run("proxy").steps,
            main_tokens=self.recipe.training.for_run("main").num_tokens,
            prior=self.resolve(config.prior) if config.prior else None,
        )

    def resolve(self, spec: WeightsSpec, *, answer: DomainWeights | None = None) -> DomainWeights:
        """Weights that the recipe names, over the domains of the experiment; ``answer``: DoReMi's, where known."""
        setting = replace(weights_setting(self.recipe, self.store), reference=self.reference_weights, answer=answer)
        return specs.resolve(spec, setting, self.names)


def open_experiment(recipe: Recipe, out: Path) -> Experiment:
    """Claim the run directory and prepare the corpus; the first stage of everything else.

    Raises:
        InputError: what `preflight.check` refuses, the directory belongs to another recipe, or the recipe does not fit
            the corpus.
    """
    _check_settings(recipe, out)
    directory = RunDirectory(out)
    experiment = _experiment(recipe, directory, _prepare(recipe, directory))
    _check(experiment)
    return experiment


def prepared_store(recipe: Recipe, out: Path) -> TokenStore | None:
    """The corpus, if it is prepared in the run directory ``out`` or read in place; None: not yet. Writes nothing.

    Raises:
        MissingFileError: ``corpus.store`` names what is not there.
        InputError: it was prepared with other settings, or cannot be opened.
    """
    config, folder = recipe.corpus, RunDirectory(out).corpus
    store = finished(folder, config_digest(config, recipe.evaluation.sets), config)
    if store is None and config.store is not None:
        return in_place.look(config)
    return store


def open_prepared(recipe: Recipe, out: Path) -> Experiment:
    """What `open_experiment` opens, of a corpus that is prepared: to look at. Claims and writes nothing.

    Raises:
        InputError: it is not prepared, or the recipe does not fit it.
    """
    store = prepared_store(recipe, out)
    if store is None:
        raise InputError(
            f"{RunDirectory(out).corpus}: not prepared yet, and what is drawn depends on how much text each domain "
            "has; run `doremi prepare` with the same recipe and --out first"
        )
    return _experiment(recipe, RunDirectory(out), store)


def _experiment(recipe: Recipe, directory: RunDirectory, store: TokenStore) -> Experiment:
    setting = weights_setting(recipe, store)
    return Experiment(recipe, directory, store, specs.resolve(recipe.weights.reference, setting, store.names))


def weights_setting(recipe: Recipe, store: TokenStore) -> Setting:
    """What weights by rule are worked out from."""
    main = recipe.training.for_run("main")
    return Setting(
        store=store,
        sequence_length=main.sequence_length,
        num_tokens=main.num_tokens,
        max_epochs=main.max_epochs,
        epochs=recipe.weights.epochs,
    )


def _prepare(recipe: Recipe, directory: RunDirectory) -> TokenStore:
    """The corpus, prepared and checked by the first of several processes; the others attach to it once it is there."""
    if launch.is_first():
        directory.claim(recipe)
        store = prepare(
            recipe.corpus,
            directory.corpus,
            sets=recipe.evaluation.sets,
            check_domains=partial(named_domains.check, recipe),
        )
        _check_tokenizer(store)
        return store
    launch.wait_for((directory.corpus / manifest.NAME).is_file, f"the corpus in {directory.corpus}")
    return TokenStore.attach(directory.corpus, packing=recipe.corpus.packing)


def _check_tokenizer(store: TokenStore) -> None:
    """The tokenizer in the corpus is the one that the manifest says; models are saved with it, and text is decoded."""
    digest = tokenizers.load(str(store.tokenizer_path)).entry.digest
    if digest != store.tokenizer_digest:
        raise RunFailedError(
            f"{store.tokenizer_path}: another tokenizer than the one that the corpus was made with (digest {digest}, "
            f"expected {store.tokenizer_digest}). Put back a copy, or delete {store.path} to prepare the corpus again"
        )


# ---- checks ----


def _check_settings(recipe: Recipe, out: Path) -> None:
    """What can be known before the corpus is prepared."""
    from doremi.training import arguments

    for run in RUNS:
        arguments.check(recipe.training.for_run(run))
    preflight.check(recipe, out)
    if recipe.evaluation.tasks and launch.is_first():
        from doremi.evaluation import downstream

        downstream.check_tasks(recipe.evaluation.tasks, num_fewshot=recipe.evaluation.num_fewshot)


def _check(experiment: Experiment) -> None:
    """What can be known before hours of training."""
    names = experiment.names
    if len(names) < 2:
        raise InputError(
            f"the experiment has one domain, {names[0]!r}; weights need at least two. Check `domain` or `domain_field` "
            "of the inputs, and weights.reference"
        )
    _check_baselines(experiment)
    _check_held_out(experiment)
    for run in RUNS:
        _check_model(experiment, run)
        _check_rows(experiment, run)
    _check_batch(experiment)
    experiment.adversary_options()


def _check_baselines(experiment: Experiment) -> None:
    """Every further baseline can be resolved, and has a name (and so a folder and a column) of its own."""
    reference = experiment.recipe.weights.reference
    taken = {"reference", "proxy", BASELINE, MAIN, "doremi", specs.label(reference)}
    for spec in experiment.recipe.weights.baselines:
        if not specs.needs_answer(spec):
            experiment.resolve(spec)
        name = specs.label(spec)
        if name in taken and spec != reference:
            raise InputError(f"weights.baselines: {spec}: the name {name!r} is taken by another run; rename the file")
        taken.add(name)


def _check_held_out(experiment: Experiment) -> None:
    """A domain without held-out text has no loss that could be compared."""
    store = experiment.store
    lacking = [
        name
        for name in experiment.names
        if store.num_tokens(name, split="held_out") <= store.num_documents(name, split="held_out")
    ]
    if lacking:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise InputError(
            f"no held-out text in {', '.join(map(repr, lacking[:5]))}{more}, so nothing to evaluate there; leave them "
            "out of weights.reference, or prepare again with corpus.held_out_fraction raised or held_out_inputs"
        )


def smaller_main(num_parameters: Mapping[RunName, int]) -> Iterator[str]:
    """A main model that is smaller than the proxy: most often it was forgotten, or the two were exchanged."""
    main, proxy = num_parameters["main"], num_parameters["proxy"]
    if main < proxy:
        yield (
            f"main: {main:,} parameters, fewer than the proxy's {proxy:,}; the proxy is there to find weights for a "
            "larger model at less cost. Is models.main right?"
        )


def num_parameters(experiment: Experiment, run: RunName) -> int:
    """Of one of the recipe's models, which takes no memory for it."""
    from doremi.models import pretrained

    return int(pretrained.empty(_check_model(experiment, run)).num_parameters())


def _check_model(experiment: Experiment, run: RunName) -> PretrainedConfig:
    from doremi.models import loading

    return loading.configure(
        getattr(experiment.recipe.models, run),
        vocab_size=experiment.store.vocab_size,
        eos_token_id=experiment.store.eos_token_id,
        sequence_length=experiment.recipe.training.for_run(run).sequence_length,
    )


def _check_rows(experiment: Experiment, run: RunName) -> None:
    length = experiment.recipe.training.for_run(run).sequence_length
    for name in experiment.names:
        if experiment.store.num_sequences(name, length) < 1:
            raise InputError(
                f"domain {name!r} has {experiment.store.num_tokens(name)} tokens, fewer than one sequence of {length}; "
                "add text, leave the domain out of weights.reference, or shorten training.sequence_length"
            )


def _check_batch(experiment: Experiment) -> None:
    proxy, names = experiment.recipe.training.for_run("proxy"), experiment.names
    may_be_absent = experiment.recipe.reweighting.allow_absent_domains or proxy.sampling == "iid"
    if proxy.global_batch_size < len(names) and not may_be_absent:
        raise InputError(
            f"training.global_batch_size is {proxy.global_batch_size} for {len(names)} domains; the proxy needs at "
            f"least {len(names)} so that no domain is ever absent. Raise it, or set "
            "reweighting.allow_absent_domains: true"
        )
