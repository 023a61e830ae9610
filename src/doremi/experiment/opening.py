"""An experiment: a recipe, its run directory and its prepared corpus, with everything checked that can be checked
before hours of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
from doremi.experiment import bench, named_domains, preflight
from doremi.experiment.recipe import Recipe
from doremi.experiment.run_directory import RunDirectory
from doremi.experiment.shared import Shared
from doremi.methods import imagined
from doremi.methods.protocol import Bench, Run
from doremi.weights import DomainWeights

if TYPE_CHECKING:
    from transformers import PretrainedConfig

COMPARING = ("excess", "reference")  # what policies see that need a reference


@dataclass(frozen=True)
class Experiment:
    """A recipe, its run directory, and its corpus once that is prepared."""

    recipe: Recipe
    directory: RunDirectory
    store: TokenStore
    bench: Bench  # what methods may know
    shared: Shared = field(default_factory=Shared, repr=False, compare=False)  # by its runs

    @property
    def names(self) -> tuple[str, ...]:
        """The domains of the experiment, those with a prior weight above 0, in the corpus' order."""
        return self.bench.names

    @property
    def prior(self) -> DomainWeights:
        """The weights to start from."""
        return self.bench.prior


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
    return Experiment(recipe, directory, store, bench.make(recipe, store, bench.set_sizes(store)))


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
            "of the inputs, and prior"
        )
    _check_methods(experiment)
    _check_held_out(experiment)
    for run in RUNS:
        _check_model(experiment, run)
        _check_rows(experiment, run)


def _check_methods(experiment: Experiment) -> None:
    """Every method can be asked, for its last run too; those that ask for nothing can answer."""
    for item in experiment.recipe.named_methods:
        asked = imagined.asked(item.method, experiment.bench)
        if not asked:
            answer, recipe = item.method.answer(experiment.bench, []), experiment.recipe
            asked = [Run(recipe.verify.size, recipe.seed, answer.weights, policy=answer.policy, label=item.label)]
        for run in asked:
            check_reference(experiment, run)
            _check_batch(experiment, run)


def check_reference(experiment: Experiment, run: Run) -> None:
    """A policy that compares losses has a reference: a run that was asked for, or the trained one of the recipe.

    Raises:
        InputError: it has none.
    """
    is_needed = run.policy is not None and run.policy.sees in COMPARING
    if is_needed and run.reference is None and not experiment.bench.has_reference:
        raise InputError(
            f"{run.label or run.size}: its policy compares losses with those of a reference, and there is none; name a "
            "trained model: models.reference: {path: ..., init: trained}"
        )


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
            "out of prior, or prepare again with corpus.held_out_fraction raised or held_out_inputs"
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
                "add text, leave the domain out of prior, or shorten training.sequence_length"
            )


def _check_batch(experiment: Experiment, run: Run) -> None:
    """A policy that weighs losses needs every domain in every batch."""
    settings, names = experiment.recipe.training.for_run(run.size), experiment.names
    may_be_absent = run.policy is None or run.policy.allow_absent_domains or settings.sampling == "iid"
    if settings.global_batch_size < len(names) and not may_be_absent:
        raise InputError(
            f"training.global_batch_size is {settings.global_batch_size} for {len(names)} domains; the {run.size} "
            f"needs at least {len(names)} so that no domain is ever absent. Raise it, or set "
            "allow_absent_domains: true in the options of the method"
        )
