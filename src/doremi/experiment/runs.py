"""One training run, from its plan to a finished folder that ``from_pretrained`` loads."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doremi import files, launch, redaction
from doremi.errors import InputError
from doremi.evaluation.config import EvaluationConfig
from doremi.experiment import finished, outcome_alone
from doremi.experiment.shared import Shared
from doremi.methods.protocol import Policy, Scoring, content
from doremi.models import saved_files
from doremi.models.config import ModelConfig
from doremi.training.config import TrainingConfig
from doremi.weights import DomainWeights

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, TrainerCallback

    from doremi.corpus import TokenStore
    from doremi.evaluation.perplexity import HeldOutSet
    from doremi.training.reference_cache import ReferenceCache
    from doremi.training.signals import Objective

logger = logging.getLogger(__name__)

SCORED = {"max_tokens_per_domain", "batch_size"}  # of the evaluation: what a curve depends on
NUM_DIGITS = 11  # of a weight, in a digest: rules that agree get there by different sums


@dataclass(frozen=True)
class TrainingRun:
    """What to train, on what, and where to put it. Equal digests mean equal models."""

    name: str
    folder: Path
    model: ModelConfig
    training: TrainingConfig
    evaluation: EvaluationConfig  # during training
    names: tuple[str, ...]  # the domains of the experiment, in the corpus' order
    sampling_weights: DomainWeights
    seed: int
    group: str = "doremi"  # to trackers: what it has in common with the other models of the run directory
    policy: Policy | None = None  # what moves weights while the run trains
    state: Any = field(default=None, compare=False)  # that the policy begins with
    reference: Reference | None = None  # whose losses the policy needs
    scoring: Scoring = field(default_factory=Scoring)
    scored_at_the_end: EvaluationConfig | None = None  # how, as long as there is a model; None: it is kept

    @property
    def is_kept(self) -> bool:
        """Whether the trained model is."""
        return self.scored_at_the_end is None

    def digest(self, corpus_digest: str) -> str:
        """Digest of everything that the trained parameters depend on."""
        settings = self.training.model_dump(mode="json", exclude={"num_threads", "reading", "overrides"})
        weights = {name: float(f"{weight:.{NUM_DIGITS}g}") for name, weight in self.sampling_weights.items()}
        scored = self.scored_at_the_end
        return files.digest_json(
            {
                "corpus": corpus_digest,
                "model": self.model.model_dump(mode="json"),
                "training": redaction.identity(settings),
                "evaluation": self.evaluation.model_dump(mode="json", include=SCORED),
                "names": self.names,
                "sampling_weights": weights,
                "seed": self.seed,
                "policy": content(self.policy),
                "reference": [self.reference.digest, self.reference.attention] if self.reference else None,
                "scoring": content(self.scoring) if self.reference else None,
            }
            | ({} if scored is None else {"scored_at_the_end": scored.model_dump(mode="json", include=SCORED)})
        )

    def in_folder(self, folder: Path) -> TrainingRun:
        """The same run in a folder."""
        return replace(self, folder=folder)


@dataclass(frozen=True)
class Reference:
    """A model whose losses the policy of another one needs."""

    folder: Path
    digest: str  # of the run that trained it, or of its files
    attention: str  # implementation of its attention
    losses: Path  # where they are cached, if they are to be


def is_finished(run: TrainingRun, store: TokenStore) -> bool:
    """Whether the run's folder is complete.

    Raises:
        InputError: it is complete, but was made from other inputs.
    """
    marker = files.read_marker(run.folder)
    if marker is not None and marker.get("digest") != run.digest(store.digest):
        raise InputError(
            f"{run.folder} was finished with other inputs than the recipe now asks for; results must not be mixed. "
            "Delete that folder to train it again, or use another --out"
        )
    return marker is not None


def train(run: TrainingRun, store: TokenStore, *, shared: Shared | None = None) -> None:
    """Train to the end, from the newest complete checkpoint if there is one; nothing to do when already finished.

    Args:
        run: what, and where.
        store: the corpus.
        shared: what other runs of this process have worked out.
    """
    if is_finished(run, store):
        logger.info("%s: finished earlier, skipped (%s)", run.name, run.folder)
        return
    with _held(run.folder):
        _train(run, store, shared or Shared())


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder of a model belongs to one training at a time; the first of its processes holds it for all of them."""
    from doremi.corpus.storing.lock import locked

    if not launch.is_first():
        yield
        return
    with locked(folder, activity="being trained") as lock:
        if lock.is_kept:
            files.remove_partial(folder)
        yield


def _train(run: TrainingRun, store: TokenStore, shared: Shared) -> None:
    from doremi.models import loading, noise
    from doremi.training import arguments, trackers

    files.make_folder(run.folder)
    _check_inputs(run)
    _refuse_other_checkpoints(run, store)
    args = arguments.training_arguments(run.training, folder=run.folder, seed=run.seed, name=run.name)
    hf_config = loading.configure(
        run.model,
        vocab_size=store.vocab_size,
        eos_token_id=store.eos_token_id,
        sequence_length=run.training.sequence_length,
    )
    objective = _objective(run, store)
    if objective.compares_losses:
        noise.report(noise.disable_in(hf_config))  # some types read it while they are built, and never again
    attention = _attention(run, run.model.attn_implementation, hf_config)
    model = loading.build(run.model, hf_config, seed=run.seed, attention=attention)
    logger.info("%s: %s parameters, %d steps", run.name, f"{model.num_parameters():,}", run.training.steps)
    started = time.monotonic()
    trainer = _trainer(run, store, shared, model=model, objective=objective, args=args)
    with trackers.recording(trainer, group=_group(run), folder=run.folder):
        trainer.train(resume_from_checkpoint=True)
    _save(run, store, shared, trainer=trainer)
    passes = {"trained": run.training.steps * run.training.global_batch_size, **trainer.passes()}
    if launch.is_first():
        state = objective.state_dict()
        # without transformers' summary of the last uninterrupted stretch, which is no part of the run
        history = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
        files.write_json(run.folder / finished.HISTORY, history)
        if not run.is_kept:
            outcome_alone.clear(run.folder)
        files.write_marker(
            run.folder,
            {
                "digest": run.digest(store.digest),
                "steps": run.training.steps,
                "num_parameters": model.num_parameters(),
                "num_tokens": run.training.num_tokens,
                "train_seconds": round(time.monotonic() - started, 3),  # of the last uninterrupted stretch
                "epochs": trainer.loader.epochs_seen,
                "rows": trainer.loader.delivered,
                "passes": passes,
                "objective": state,
                **finished.seal("objective", state),
                "files": saved_files.record(run.folder, _files_to_read(run)),
            },
        )
    # the others too look for a finished reference by its marker
    launch.wait_for(lambda: files.read_marker(run.folder) is not None, f"the end of {run.folder}")


def _check_inputs(run: TrainingRun) -> None:
    """Models that this one is made of, where they were trained here: their files are those that were saved."""
    if run.reference is not None:
        saved_files.check(run.reference.folder)
    if run.model.init == "pretrained" and run.model.path is not None:
        saved_files.check(Path(run.model.path))


def _save(run: TrainingRun, store: TokenStore, shared: Shared, *, trainer: Any) -> None:
    """The model, or what is to be known of it afterwards."""
    from doremi.training import failed_writes

    scored = run.scored_at_the_end
    with failed_writes.reported(run.folder):
        if scored is None:
            trainer.save_model(str(run.folder))
            return
        held_out = _held_out(run, store, shared, cap=scored.max_tokens_per_domain)
        path, key = run.folder / finished.LOSSES, run.digest(store.digest)
        outcome_alone.score(trainer.model, held_out, batch_size=scored.batch_size, path=path, key=key)


def _files_to_read(run: TrainingRun) -> list[Path]:
    return finished.files_to_read(run.folder) if run.is_kept else outcome_alone.files_to_read(run.folder)


def _held_out(run: TrainingRun, store: TokenStore, shared: Shared, *, cap: int | None) -> HeldOutSet:
    return shared.held_out(store, run.names, length=run.training.sequence_length, cap=cap)


def _trainer(run: TrainingRun, store: TokenStore, shared: Shared, *, model: PreTrainedModel, **kwargs: Any) -> Any:
    from doremi.experiment.held_out_curve import HeldOutCurve
    from doremi.training.arguments import learning_rate_schedule
    from doremi.training.trainer import DoReMiTrainer

    held_out = _held_out(run, store, shared, cap=run.evaluation.max_tokens_per_domain)
    curve = HeldOutCurve(held_out, every=run.training.eval_steps, batch_size=run.evaluation.batch_size)
    curve.trainer = trainer = DoReMiTrainer(
        model,
        corpus=store,
        sampling_weights=run.sampling_weights,
        mixture=run.training.mixture(),
        allow_absent_domains=run.policy is not None and run.policy.allow_absent_domains,
        learning_rate_schedule=learning_rate_schedule(run.training),
        callbacks=[curve, *_saving(run)],
        processing_class=shared.tokenizer(store),
        passed=None if run.is_kept else shared.passed,
        **kwargs,
    )
    return trainer


def _saving(run: TrainingRun) -> list[TrainerCallback]:
    """What decides when checkpoints are saved, beside ``save_steps``: several processes save by those always."""
    from doremi.training import timed_saving

    is_timed = not run.is_kept and launch.world_size() == 1
    return [timed_saving.TimedSaving(timed_saving.SECONDS)] if is_timed else []


def _group(run: TrainingRun) -> str:
    return str(run.training.arguments.get("run_name") or run.group)


def _objective(run: TrainingRun, store: TokenStore) -> Objective:
    from doremi.training.signals import Objective, TokenMean

    if run.policy is None:
        return TokenMean(run.names)
    cache = _reference_cache(run, store) if run.scoring.cache != "none" else None
    return Objective(run.names, policy=run.policy, state=run.state, reference=_reference(run), cache=cache)


def _reference(run: TrainingRun) -> PreTrainedModel | None:
    """The model whose losses the policy needs, in evaluation precision."""
    from transformers import AutoConfig

    from doremi.models import pretrained

    if run.reference is None:
        return None
    hf_config = AutoConfig.from_pretrained(run.reference.folder)
    attention = _attention(run, run.reference.attention, hf_config)
    return pretrained.load(run.reference.folder, attention=attention, dtype=run.scoring.dtype)


def _attention(run: TrainingRun, name: str, hf_config: PretrainedConfig) -> str | None:
    from doremi.models import attention
    from doremi.training import arguments

    return attention.resolve(name, precision=arguments.precision(run.training), hf_config=hf_config)


def model_digest(folder: Path) -> str:
    """Digest of a model: of the run that trained it, or of all the files that are loaded of it; pickles never are."""
    marker = files.read_marker(folder)
    if marker is not None and "digest" in marker:
        return str(marker["digest"])
    suffixes = (".safetensors", ".json")
    return files.digest_json(
        {path.name: files.digest_file(path) for path in sorted(folder.iterdir()) if path.suffix in suffixes}
    )


def _reference_cache(run: TrainingRun, store: TokenStore) -> ReferenceCache:
    """Beside the reference, for every proxy that is trained with it."""
    from doremi.training.arguments import precision
    from doremi.training.reference_cache import ReferenceCache

    assert run.reference is not None
    assert run.scoring.cache != "none"
    length = run.training.sequence_length
    return ReferenceCache.open(
        run.reference.losses,
        row_counts={name: store.num_sequences(name, length) for name in run.names},
        sequence_length=length,
        key={
            "reference": run.reference.digest,
            "corpus": store.digest,
            "tokenizer": store.tokenizer_digest,
            "documents": run.training.documents,
            "precision": f"{run.scoring.dtype}, {precision(run.training)}, {run.reference.attention}",
        },
        dtype=run.scoring.cache,
        max_new_rows=run.training.steps * run.training.global_batch_size,
    )


def _refuse_other_checkpoints(run: TrainingRun, store: TokenStore) -> None:
    """Checkpoints in the folder must come from the same inputs; the digest is written before the first of them."""
    started = run.folder / finished.STARTED
    digest = run.digest(store.digest)
    if started.exists() and files.read_json(started) != {"digest": digest}:
        raise InputError(
            f"{run.folder} holds an unfinished run of other inputs; delete that folder, or use another --out"
        )
    if launch.is_first():
        files.write_json(started, {"digest": digest})
