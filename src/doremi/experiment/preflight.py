"""What of a recipe can be known before anything is prepared or trained: hours later is too late for a wrong name.

`check` holds on any machine and is what every verb with a recipe begins with; `check_machine` is for the machine that
trains, since a corpus is often prepared, and a job script written, where there is no GPU.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from doremi import launch
from doremi.config import RUNS, RunName
from doremi.corpus import TokenStore
from doremi.corpus.preparing.job import config_digest
from doremi.corpus.storing import manifest
from doremi.corpus.tokenizing import tokenizers
from doremi.errors import InputError, RunFailedError
from doremi.experiment import named_domains
from doremi.experiment.recipe import Recipe
from doremi.experiment.run_directory import RunDirectory
from doremi.methods.named import Own
from doremi.models.config import ModelConfig
from doremi.weights import specs

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from doremi.corpus.tokenizing.tokenizers import TokenizerEntry

MAX_SEEDS = 2**32


def check(recipe: Recipe, out: Path | None = None) -> None:
    """Refuse what could be refused on any machine without the corpus; done by the first of several processes.

    Args:
        recipe: whose paths must be there, but for that of a tokenizer that a prepared corpus has its own copy of.
        out: the run directory, where one is known; only looked at.

    Raises:
        InputError: names the key of the recipe, or the file of a checkpoint.
    """
    from doremi.training import argument_checks

    if not launch.is_first():
        return
    _check_seeds(recipe)
    for run in RUNS:
        argument_checks.check_values(recipe.training.for_run(run), run)
    for key, spec in named_domains.named_weights(recipe).items():
        specs.check(spec, source=key)
    for item in recipe.named_methods:
        if isinstance(item.method, Own):
            item.method.method  # noqa: B018 imported now, not hours later
    _check_models(recipe, _tokenizer(recipe, out))


def check_machine(recipe: Recipe, out: Path | None = None) -> None:
    """Refuse what cannot be trained here: optimizers that are not installed, kernels, what the device cannot do.

    Weights that are on the hub are downloaded, and looked at as those in a folder are by `check`.

    Args:
        recipe: as of `check`.
        out: as of `check`.

    Raises:
        InputError: names the key of the recipe.
    """
    from doremi.models import attention, pretrained
    from doremi.training import argument_checks, arguments

    if not launch.is_first():
        return
    tokenizer = _tokenizer(recipe, out)
    for run in RUNS:
        training, config = recipe.training.for_run(run), getattr(recipe.models, run)
        arguments.check(training)
        argument_checks.check_values(training, run)
        with pretrained.explained(f"models.{run}: {config.preset or config.path}"):
            hf_config = _configure(recipe, run, tokenizer)
            precision = arguments.precision(training)
            chosen = attention.resolve(config.attn_implementation, precision=precision, hf_config=hf_config)
            model = pretrained.empty(hf_config, attention=chosen)
        argument_checks.check_machine(training, run, model)
    for run in RUNS:  # last, since it downloads
        config = getattr(recipe.models, run)
        if config.path is not None and not Path(config.path).is_dir():
            _check_checkpoint(config, _configure(recipe, run, tokenizer), tokenizer)


def _check_seeds(recipe: Recipe) -> None:
    """Every model has a seed of its own, and NumPy's generator, which transformers seeds too, takes 32 bits."""
    last = recipe.seed + max(recipe.verify.seeds, *(method.seeds for method in recipe.doremi_methods()), 1) - 1
    if last >= MAX_SEEDS:
        raise InputError(f"seed: the models of this recipe have seeds up to {last}; they must be below {MAX_SEEDS}")


def _check_models(recipe: Recipe, tokenizer: TokenizerEntry | None) -> None:
    """Every model is built without memory, the headers of its checkpoint are read, and a small copy of it is tried.

    A checkpoint on the hub is left to `check_machine`: a plan or a job script is no reason to download weights.
    """
    from doremi.models import pretrained

    for run in RUNS:
        config: ModelConfig = getattr(recipe.models, run)
        if config.init == "trained" and config.overrides:
            raise InputError(f"models.{run}.overrides: a trained model (init: trained) is used as it is; drop them")
        with pretrained.explained(f"models.{run}: {config.preset or config.path}"):
            hf_config = _configure(recipe, run, tokenizer)
            pretrained.empty(hf_config)
        if config.path is not None and Path(config.path).is_dir():
            _check_checkpoint(config, hf_config, tokenizer)
    for run in RUNS:
        _try(recipe, run)


def _check_checkpoint(config: ModelConfig, hf_config: PretrainedConfig, tokenizer: TokenizerEntry | None) -> None:
    """The headers of a model's weights, where it begins with some; of a hub id they are downloaded as a whole."""
    from doremi.models import loading, pretrained

    assert config.path is not None
    if config.init == "pretrained":
        pretrained.check(config.path, hf_config=hf_config, renamed=loading.renamed(config, hf_config))
    if config.init == "trained":
        pretrained.check(config.path)
        if tokenizer is not None:
            loading.trained_reference(config, tokenizer_digest=tokenizer.digest)


def _try(recipe: Recipe, run: RunName) -> None:
    """A model can be trained as the recipe asks: a causal LM, with documents apart where they are to be."""
    from doremi.models import suitability

    settings = recipe.training.for_run(run)
    suitability.check(
        getattr(recipe.models, run), sequence_length=settings.sequence_length, documents=settings.documents
    )


def _configure(recipe: Recipe, run: RunName, tokenizer: TokenizerEntry | None) -> PretrainedConfig:
    from doremi.models import loading

    config: ModelConfig = getattr(recipe.models, run)
    return loading.configure(
        config,
        vocab_size=_vocab_size(recipe, config, tokenizer),
        eos_token_id=tokenizer.eos_token_id if tokenizer else 0,
        sequence_length=recipe.training.for_run(run).sequence_length,
    )


def _vocab_size(recipe: Recipe, config: ModelConfig, tokenizer: TokenizerEntry | None) -> int:
    """The corpus' vocabulary; where its tokenizer is still to be trained, what it may have at most.

    Of a checkpoint that is to be used with it, no more is asked than the fewest that it can have.
    """
    if tokenizer is not None:
        return tokenizer.vocab_size
    return recipe.corpus.tokenizer.vocab_size if config.init == "random" else tokenizers.MIN_VOCAB_SIZE


def _tokenizer(recipe: Recipe, out: Path | None) -> TokenizerEntry | None:
    """The corpus' tokenizer; None where it is still to be trained, or where the corpus will say what is wrong.

    Once the corpus is prepared, its own copy: the tokenizer that the recipe names may be gone.
    """
    if out is not None and (prepared := _prepared_tokenizer(recipe, out)) is not None:
        return prepared
    given = recipe.corpus.tokenizer
    if given.path is not None:
        return tokenizers.load(given.path, eos_token=given.eos_token).entry
    with suppress(InputError):
        if recipe.corpus.store is not None:
            return tokenizers.load(str(TokenStore.open(recipe.corpus.store).tokenizer_path)).entry
    return None


def _prepared_tokenizer(recipe: Recipe, out: Path) -> TokenizerEntry | None:
    """That of the corpus in a run directory; None where it is not prepared, or not with these settings, or damaged."""
    folder = RunDirectory(out).corpus
    with suppress(InputError, RunFailedError):
        if manifest.read(folder).get("config_digest") == config_digest(recipe.corpus, recipe.evaluation.sets):
            return tokenizers.load(str(TokenStore.attach(folder).tokenizer_path)).entry
    return None
