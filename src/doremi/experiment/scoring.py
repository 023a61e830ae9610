"""Trained models to the losses of every held-out document, kept beside the model: scoring a large one takes a while."""

from __future__ import annotations

from doremi import files
from doremi.errors import InputError
from doremi.evaluation import checkpoints, loss_files, perplexity
from doremi.evaluation.perplexity import HeldOutSet
from doremi.evidence.paired_documents import DocumentLosses
from doremi.experiment.finished import LOSSES
from doremi.experiment.opening import Experiment
from doremi.experiment.runs import TrainingRun, is_finished


def held_out_set(experiment: Experiment) -> HeldOutSet:
    """What every final model is scored on."""
    held_out = perplexity.collect(
        experiment.store,
        experiment.names,
        sequence_length=experiment.recipe.training.for_run("main").sequence_length,
        max_tokens_per_domain=experiment.recipe.evaluation.max_tokens_per_domain,
    )
    return checkpoints.with_bytes_of_scored_text(held_out, experiment.store)


def score(experiment: Experiment, run: TrainingRun, held_out: HeldOutSet) -> dict[str, DocumentLosses]:
    """The losses of a trained run by domain, from its folder where they are known.

    Raises:
        InputError: it is not trained yet, or was trained on other inputs than the recipe and the corpus now are.
    """
    if not is_finished(run, experiment.store):
        raise InputError(f"{run.name} is not trained yet ({run.folder}); `doremi run` trains what is missing")
    key = _key(experiment, run, held_out)
    known = loss_files.read(run.folder / LOSSES, held_out.names, key=key)
    return known or _score_anew(run, held_out, key=key, batch_size=experiment.recipe.evaluation.batch_size)


def _key(experiment: Experiment, run: TrainingRun, held_out: HeldOutSet) -> str:
    """Of the model, in whose digest the corpus is, and of what is scored how; batches change nothing."""
    recipe = experiment.recipe
    length = recipe.training.for_run("main").sequence_length
    model = run.digest(experiment.store.digest)
    return files.digest_json([model, held_out.names, recipe.evaluation.max_tokens_per_domain, length])


def _score_anew(run: TrainingRun, held_out: HeldOutSet, *, key: str, batch_size: int) -> dict[str, DocumentLosses]:
    description = f"evaluate {run.name}"
    losses = perplexity.document_losses(
        checkpoints.load_model(run.folder), held_out, batch_size=batch_size, description=description
    )
    documents = dict(zip(held_out.names, held_out.documents, strict=True))
    loss_files.write(run.folder / LOSSES, losses, documents=documents, key=key)
    return losses
