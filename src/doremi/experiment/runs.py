"""One training run, from its plan to a finished folder that ``from_pretrained`` loads."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doremi import files, launch, redaction
from doremi.errors import InputError
from doremi.evaluation.config import EvaluationConfig
from doremi.experiment import finished
from doremi.methods.doremi_config import ReweightingConfig
from doremi.methods.group_dro_options import GroupDROOptions
from doremi.models import saved_files
from doremi.models.config import ModelConfig
from doremi.training.config import TrainingConfig
from doremi.weights import DomainWeights

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from doremi.corpus import TokenStore
    from doremi.training.reference_cache import ReferenceCache
    from doremi.training.signals import Objective

logger = logging.getLogger(__name__)

SEARCH = {"rounds", "max_rounds", "tolerance", "seeds"}  # of the recipe: what a single proxy does not depend on
SCORED = {"max_tokens_per_domain", "batch_size"}  # of the evaluation: what a curve depends on
BASELINE, MAIN = "baseline", "main"  # names of two of the compared runs; the others are named after their weights


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
    reference: Path | None = None  # of the proxy: the finished reference
    reference_losses: Path | None = None  # of the proxy: where they are cached
    reference_attention: str = "auto"  # of the proxy: the attention implementation of the reference
    reweighting: ReweightingConfig | None = None  # of the proxy
    adversary: GroupDROOptions | None = None  # of the proxy: what is added to Group DRO

    def digest(self, corpus_digest: str) -> str:
        """Digest of everything that the trained parameters depend on."""
        settings = self.training.model_dump(mode="json", exclude={"num_threads", "reading", "overrides"})
        return files.digest_json(
            {
                "corpus": corpus_digest,
                "model": self.model.model_dump(mode="json"),
                "training": redaction.identity(settings),
                "evaluation": self.evaluation.model_dump(mode="json", include=SCORED),
                "names": self.names,
                "sampling_weights": dict(self.sampling_weights),
                "seed": self.seed,
                "reference": [_model_digest(self.reference), self.reference_attention] if self.reference else None,
                "reweighting": self.reweighting.model_dump(mode="json", exclude=SEARCH) if self.reweighting else None,
                "adversary": self.adversary.to_dict() if self.adversary else None,
            }
        )


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


def train(run: TrainingRun, store: TokenStore) -> None:
    """Train to the end, from the newest complete checkpoint if there is one; nothing to do when already finished."""
    if is_finished(run, store):
        logger.info("%s: finished earlier, skipped (%s)", run.name, run.folder)
        return
    with _held(run.folder):
        _train(run, store)


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


def _train(run: TrainingRun, store: TokenStore) -> None:
    from transformers import AutoTokenizer

    from doremi.models import loading, noise
    from doremi.training import arguments, failed_writes, trackers

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
    if run.reference is not None:
        noise.report(noise.disable_in(hf_config))  # some types read it while they are built, and never again
    attention = _attention(run, run.model.attn_implementation, hf_config)
    model = loading.build(run.model, hf_config, seed=run.seed, attention=attention)
    logger.info("%s: %s parameters, %d steps", run.name, f"{model.num_parameters():,}", run.training.steps)
    tokenizer = AutoTokenizer.from_pretrained(store.tokenizer_path)
    objective = _objective(run, store)
    started = time.monotonic()
    trainer = _trainer(run, store, model, objective, args=args, processing_class=tokenizer)
    with trackers.recording(trainer, group=_group(run), folder=run.folder):
        trainer.train(resume_from_checkpoint=True)
    with failed_writes.reported(run.folder):
        trainer.save_model(str(run.folder))
    if launch.is_first():
        # without transformers' summary of the last uninterrupted stretch, which is no part of the run
        history = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
        files.write_json(run.folder / finished.HISTORY, history)
        files.write_marker(
            run.folder,
            {
                "digest": run.digest(store.digest),
                "steps": run.training.steps,
                "num_parameters": model.num_parameters(),
                "num_tokens": run.training.num_tokens,
                "train_seconds": round(time.monotonic() - started, 3),  # of the last uninterrupted stretch
                "epochs": trainer.loader.epochs_seen,
                "objective": objective.state_dict(),
                "files": saved_files.record(run.folder, finished.files_to_read(run.folder)),
            },
        )
    # the others too look for a finished reference by its marker
    launch.wait_for(lambda: files.read_marker(run.folder) is not None, f"the end of {run.folder}")


def _check_inputs(run: TrainingRun) -> None:
    """Models that this one is made of, where they were trained here: their files are those that were saved."""
    if run.reference is not None:
        saved_files.check(run.reference)
    if run.model.init == "pretrained" and run.model.path is not None:
        saved_files.check(Path(run.model.path))


def _trainer(run: TrainingRun, store: TokenStore, model: PreTrainedModel, objective: Objective, **kwargs: Any) -> Any:
    from doremi.evaluation.perplexity import collect
    from doremi.experiment.held_out_curve import HeldOutCurve
    from doremi.training.arguments import learning_rate_schedule
    from doremi.training.trainer import DoReMiTrainer

    held_out = collect(
        store,
        run.names,
        sequence_length=run.training.sequence_length,
        max_tokens_per_domain=run.evaluation.max_tokens_per_domain,
    )
    curve = HeldOutCurve(held_out, every=run.training.eval_steps, batch_size=run.evaluation.batch_size)
    curve.trainer = trainer = DoReMiTrainer(
        model,
        objective=objective,
        corpus=store,
        sampling_weights=run.sampling_weights,
        mixture=run.training.mixture(),
        allow_absent_domains=run.reweighting is not None and run.reweighting.allow_absent_domains,
        learning_rate_schedule=learning_rate_schedule(run.training),
        callbacks=[curve],
        **kwargs,
    )
    return trainer


def _group(run: TrainingRun) -> str:
    return str(run.training.arguments.get("run_name") or run.group)


def _objective(run: TrainingRun, store: TokenStore) -> Objective:
    from doremi.training.signals import ExcessLoss, TokenMean

    if run.reference is None:
        return TokenMean(run.names)
    from transformers import AutoConfig

    from doremi.models import pretrained

    assert run.reweighting is not None
    reference = pretrained.load(
        run.reference,
        attention=_attention(run, run.reference_attention, AutoConfig.from_pretrained(run.reference)),
        dtype=run.reweighting.reference_dtype,
    )
    return ExcessLoss(
        reference,
        names=run.names,
        step_size=run.reweighting.step_size,
        smoothing=run.reweighting.smoothing,
        target=run.reweighting.objective,
        options=run.adversary,
        loss_normalisation=run.reweighting.loss_normalisation,
        weights_update=run.reweighting.weights_update,
        cache=_reference_cache(run, store) if run.reweighting.reference_cache else None,
    )


def _attention(run: TrainingRun, name: str, hf_config: PretrainedConfig) -> str | None:
    from doremi.models import attention
    from doremi.training import arguments

    return attention.resolve(name, precision=arguments.precision(run.training), hf_config=hf_config)


def _model_digest(folder: Path) -> str:
    """Of a model: that of the run that trained it, or of its files."""
    marker = files.read_marker(folder)
    if marker is not None and "digest" in marker:
        return marker["digest"]
    found = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".json")]
    return files.digest_json({path.name: files.digest_file(path) for path in found})


def _reference_cache(run: TrainingRun, store: TokenStore) -> ReferenceCache:
    """Beside the reference, for every proxy that is trained with it."""
    from doremi.training.arguments import precision
    from doremi.training.reference_cache import ReferenceCache

    assert run.reference is not None
    assert run.reference_losses is not None
    assert run.reweighting is not None
    length = run.training.sequence_length
    return ReferenceCache.open(
        run.reference_losses,
        row_counts={name: store.num_sequences(name, length) for name in run.names},
        sequence_length=length,
        key={
            "reference": _model_digest(run.reference),
            "corpus": store.digest,
            "tokenizer": store.tokenizer_digest,
            "documents": run.training.documents,
            "precision": f"{run.reweighting.reference_dtype}, {precision(run.training)}, {run.reference_attention}",
        },
        dtype=run.reweighting.reference_cache_dtype,
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
