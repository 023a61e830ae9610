"""The ledger of an experiment: what a method asks for is trained once, in a folder that its digest names."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from doremi import files, launch
from doremi.errors import NotFiniteError
from doremi.evaluation.config import EvaluationConfig
from doremi.evidence.comparing import nats_per_token
from doremi.evidence.paired_documents import DocumentLosses
from doremi.experiment import finished, garbage, outcome_alone, runs
from doremi.experiment.opening import COMPARING, Experiment, check_reference
from doremi.experiment.run_directory import NUM_CHARACTERS
from doremi.experiment.runs import Reference, TrainingRun
from doremi.methods import states
from doremi.methods.protocol import Outcome, Run, Scoring, content

logger = logging.getLogger(__name__)

PRECISIONS = ("bf16", "fp16")  # of training.arguments
MAX_LABEL_CHARACTERS = 60
_UNSAFE = re.compile(r"[^A-Za-z0-9.()]+")


def training_run(experiment: Experiment, run: Run) -> TrainingRun:
    """How a run is trained by the experiment's recipe, and where.

    Its folder is the one of that digest, whatever it is called; a new one is called after the label.
    """
    recipe = experiment.recipe
    training = recipe.training.for_run(run.size)
    if run.steps is not None:
        training = training.model_copy(update={"steps": run.steps})
    found = TrainingRun(
        name=run.label or run.size,
        folder=Path(),
        model=getattr(recipe.models, run.size),
        training=training,
        evaluation=recipe.evaluation.during_training(),
        names=experiment.names,
        sampling_weights=run.weights,
        seed=run.seed,
        group=experiment.directory.root.resolve().name,
        policy=run.policy,
        state=None if run.policy is None else run.policy.init(experiment.bench),
        reference=_reference(experiment, run),
        scoring=run.scoring or Scoring(),
        scored_at_the_end=None if run.keep else _at_the_end(recipe.evaluation),
    )
    digest = found.digest(experiment.store.digest)
    return found.in_folder(_folder(experiment.directory.runs, label=run.label or run.size, digest=digest))


def outcome(experiment: Experiment, run: Run) -> Outcome | None:
    """What a run left; None: it is not finished.

    Raises:
        InputError: what it left cannot be read.
    """
    planned = training_run(experiment, run)
    if (failure := finished.failure(planned.folder)) is not None:
        return Outcome(run, failure=failure)
    if not runs.is_finished(planned, experiment.store):
        return None
    facts, documents = finished.facts(planned.folder), _documents(experiment, planned)
    return Outcome(
        run,
        nats=nats_per_token(documents),
        documents=documents,
        realised=facts["rows"],
        state=_state(experiment, run, planned.folder),
        history=finished.load_history(planned.folder, experiment.names),
    )


def train(experiment: Experiment, asked: Iterable[Run]) -> list[Outcome]:
    """Train runs to the end, each from its newest complete checkpoint; those that are finished are skipped.

    Raises:
        InputError: see `runs.train`.
        RunFailedError: a checkpoint could not be saved. A loss that is not finite is an outcome.
    """
    with garbage.swept() as sweep:
        return [_train(experiment, run, sweep) for run in asked]


def _train(experiment: Experiment, run: Run, sweep: Callable[[], object]) -> Outcome:
    known = outcome(experiment, run)
    if known is not None:
        logger.info("%s: %s earlier, skipped", run.label or run.size, "failed" if known.failure else "finished")
        return known
    planned = training_run(experiment, run)
    if not run.keep:
        sweep()
    try:
        runs.train(planned, experiment.store, shared=experiment.shared)
    except NotFiniteError as error:  # seen by all processes; it would be so again
        logger.warning("%s: failed: %s", planned.name, error)
        if launch.is_first():
            if not run.keep:
                outcome_alone.clear(planned.folder)
            files.write_json(planned.folder / finished.FAILED, {"failure": str(error)})
        launch.wait_for((planned.folder / finished.FAILED).is_file, f"the end of {planned.folder}")
    result = outcome(experiment, run)
    assert result is not None
    return result


def _at_the_end(evaluation: EvaluationConfig) -> EvaluationConfig:
    """How a model that is not kept is scored before it goes."""
    return EvaluationConfig(max_tokens_per_domain=evaluation.max_tokens_per_domain, batch_size=evaluation.batch_size)


def _documents(experiment: Experiment, planned: TrainingRun) -> dict[str, DocumentLosses]:
    """The losses of a finished run by set and document; of a model that is kept, none: it is scored when it has to."""
    if planned.is_kept:
        return {}
    store = experiment.store
    return outcome_alone.losses(planned.folder, [*planned.names, *store.sets], key=planned.digest(store.digest))


def _reference(experiment: Experiment, run: Run) -> Reference | None:
    """The model whose losses the policy of a run needs: of another run, or the trained one that the recipe names."""
    if run.policy is None or run.policy.sees not in COMPARING:
        return None
    attention = experiment.recipe.models.reference.attn_implementation
    if run.reference is not None:
        trained = training_run(experiment, run.reference)
        digest, folder = trained.digest(experiment.store.digest), trained.folder
    else:
        from doremi.models import loading

        check_reference(experiment, run)
        config = experiment.recipe.models.reference
        folder = loading.trained_reference(config, tokenizer_digest=experiment.store.tokenizer_digest)
        digest = runs.model_digest(folder)
    training = experiment.recipe.training.for_run(run.size)
    key = files.digest_json(
        {
            "reference": [digest, attention, content(run.scoring or Scoring())],
            "rows": [training.sequence_length, training.documents, experiment.names],
            "precision": {name: training.arguments.get(name) for name in PRECISIONS},
        }
    )
    return Reference(folder, digest, attention, experiment.directory.reference_losses / key[:NUM_CHARACTERS])


def _folder(parent: Path, *, label: str, digest: str) -> Path:
    """The folder of a run: ``LABEL-DIGEST``, or what there is of that digest under another label."""
    end = digest[:NUM_CHARACTERS]
    known = sorted(parent.glob(f"*-{end}")) if parent.is_dir() else []
    return known[0] if known else parent / f"{slug(label)}-{end}"


def slug(label: str) -> str:
    """A label as part of a file name: letters, digits, dots and brackets stay, the rest becomes a dash."""
    return _UNSAFE.sub("-", label).strip("-.")[:MAX_LABEL_CHARACTERS] or "run"


def _state(experiment: Experiment, run: Run, folder: Path) -> Any:
    """What the policy of a run ended with."""
    if run.policy is None:
        return None
    return states.restore(run.policy.init(experiment.bench), finished.objective_state(folder))
