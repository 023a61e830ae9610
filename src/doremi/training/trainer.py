"""The one training loop: `transformers.Trainer` with an objective and an exact, resumable mixture of domains.

The order of a step is that of `DoReMiTrainer._optimizer_step`, whoever calls it.
"""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from doremi import files
from doremi.errors import InputError, NotFiniteError, RunFailedError
from doremi.mixture import MixtureLoader, MixtureSettings
from doremi.models import compilation, configurations, noise, suitability, token_loss
from doremi.models.passed import PassedProbes
from doremi.models.probes import Probe
from doremi.models.token_loss import TokenLosses, token_losses, token_nats
from doremi.training import checkpoints, distributed, failed_writes, passed_through, progress, sharding
from doremi.training.interruption import Interruption
from doremi.training.schedules import LearningRateSchedule
from doremi.training.signals import DomainSums, Objective, count_targets, domain_sums, presence_probabilities
from doremi.weights import DomainWeights

logger = logging.getLogger(__name__)

STATE_FILE = "doremi_state.json"
Batch = dict[str, torch.Tensor]


class DoReMiTrainer(Trainer):
    """Train ``model`` on a mixture of domains; the objective decides what the run is.

    Per optimizer step: the sums of all micro-batches and ranks are added up, the objective is updated once, and the
    loss ``world_size · Σ_j w_j nats_j`` of each micro-batch is back-propagated. It is never divided by the number of
    micro-batches; the world size undoes the averaging of gradients in DDP and FSDP. What the objective's policy sees,
    and when, decides whether the step's losses are measured first, and whether noise in the model is switched off.

    Args:
        model: any Hugging Face causal LM.
        objective: `TokenMean` for plain training, `ExcessLoss` for the proxy, `Objective` for any other policy.
        corpus: the token store to draw from (`doremi.corpus.TokenStore`).
        args: `max_steps` is required; global batch = per-device batch × accumulation × processes.
        sampling_weights: what the loader draws with, where the policy does not say; None: uniform where the policy
            weighs the loss, by tokens elsewhere.
        mixture: sequence length, order of the rows, repetition, document masking.
        allow_absent_domains: let batches miss domains that the policy weighs the loss of; the gradient stays unbiased,
            at a higher variance.
        learning_rate_schedule: warm-up and decay; None: `args.lr_scheduler_type` decides.
        on_update: called as ``on_update(step, objective)`` once per optimizer step, on every rank, right after the
            objective was updated: α and λ of the step are in ``objective.dro`` or ``objective.metrics()``.
        passed: what models of the same kind have shown in this process already; default: nothing.
        **kwargs: passed to `transformers.Trainer` (callbacks, processing_class, optimizers, ...).

    Raises:
        InputError: the proxy's global batch has fewer rows than there are domains, so that some would be absent; or
            several GPUs for one process; the model's losses show that it is not causal, that it cannot keep documents
            apart where it is to, or, as a proxy, that they are not the same from one forward pass to the next.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        objective: Objective,
        corpus: Any,
        args: TrainingArguments,
        sampling_weights: DomainWeights | None = None,
        mixture: MixtureSettings | None = None,
        allow_absent_domains: bool = False,
        learning_rate_schedule: LearningRateSchedule | None = None,
        on_update: Callable[[int, Objective], None] | None = None,
        passed: PassedProbes | None = None,
        **kwargs: Any,
    ) -> None:
        self.objective = objective
        self._schedule = learning_rate_schedule
        self._on_update = on_update
        self._passed = passed
        self._allow_absent_domains = allow_absent_domains
        if args.n_gpu > 1:
            raise InputError(f"one process sees {args.n_gpu} GPUs; start one for each of them, with torchrun")
        passed_through.check_built(args)
        self._save_total_limit, args.save_total_limit = args.save_total_limit, None  # rotation is ours: see below
        args.ignore_data_skip = True  # the loader seeks; replaying hours of batches is what we are here to avoid
        self._may_find_unused = args.ddp_find_unused_parameters is None
        if self._may_find_unused:
            args.ddp_find_unused_parameters = False  # takes time in each step: switched on where a probe finds some
        if objective.compares_losses and args.neftune_noise_alpha:
            args.neftune_noise_alpha = None
            logger.warning("neftune_noise_alpha is left out of the proxy, which is measured and trained on")
        # a loss of our own is how to tell every version of transformers that ours is a sum over the global batch: it
        # would divide it by the number of micro-batches (5.17 knows no `loss_is_scaled_for_ga`)
        super().__init__(model=model, args=args, compute_loss_func=self.compute_loss, **kwargs)
        mixture = mixture or MixtureSettings()
        self.loader = self._make_loader(corpus, sampling_weights, mixture)
        token_loss.install(model)  # before accelerate wraps its forward or shards it
        self._probe(model, mixture)
        if args.torch_compile:
            compilation.compile_layers(model, **compilation.options(args))
        self._prepare_reference(mixture)
        self._losses: Iterator[torch.Tensor] = iter(())  # of the micro-batches of this step
        num_domains = len(objective.names)
        self._num_measured_rows = 0  # in this process
        self._nats_sums = torch.zeros(num_domains, dtype=torch.float64, device=args.device)
        self._token_counts = torch.zeros_like(self._nats_sums)
        self._interruption = Interruption()
        self.add_callback(self._interruption)
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        if not args.disable_tqdm:
            tokens_per_step = self._global_batch_size * mixture.sequence_length
            self.add_callback(progress.make(tokens_per_step=tokens_per_step, description=args.run_name or "train"))

    def create_accelerator_and_postprocess(self) -> None:
        """As transformers does, with what `sharding.prepare` does first."""
        sharding.prepare(self.args)
        super().create_accelerator_and_postprocess()
        if self.args.torch_compile:
            compilation.keep_accelerate_from_compiling(self.accelerator)

    @property
    def _global_batch_size(self) -> int:
        return self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size

    def _make_loader(self, corpus: Any, weights: DomainWeights | None, mixture: MixtureSettings) -> MixtureLoader:
        names = self.objective.names
        if weights is None:
            weights = self.objective.default_sampling_weights({name: corpus.num_tokens(name) for name in names})
        if (moved := self.objective.sampling_weights) is not None:
            weights = DomainWeights(self._by_name(moved))
        if self.objective.has_loss_weights:
            self._check_absences(weights, mixture.mode)
        schedule = mixture.schedule(
            corpus,
            names,
            weights=weights,
            global_batch_size=self._global_batch_size,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
        )
        return mixture.loader(
            corpus,
            schedule,
            micro_batch_size=self.args.per_device_train_batch_size,
            rank=self.args.process_index,
            world_size=self.args.world_size,
        )

    def _check_absences(self, weights: DomainWeights, mode: str) -> None:
        probabilities = self._expect_absences(weights.as_array(self.objective.names), mode)
        if probabilities.min() < 1 and not self._allow_absent_domains and mode == "balanced":
            names = self.objective.names
            raise InputError(
                f"the proxy's global batch has {self._global_batch_size} rows for {len(names)} domains, so that "
                f"{names[probabilities.argmin()]!r} would be absent from some; raise the global batch size to at least "
                f"{len(names)}, or set reweighting.allow_absent_domains"
            )

    def _expect_absences(self, sampling_weights: np.ndarray, mode: str) -> np.ndarray:
        """Let the objective know how likely each domain is to be in the next global batch, float64[k]."""
        size = self._global_batch_size
        probabilities = presence_probabilities(sampling_weights, global_batch_size=size, sampling=mode)
        self.objective.expect_absences(probabilities, sampling_weights=sampling_weights)
        return probabilities

    def _probe(self, model: PreTrainedModel, mixture: MixtureSettings) -> None:
        """See by its losses that the model is what training takes it for; the proxy's noise is switched off first."""
        changed = noise.disable(model) if self.objective.compares_losses else []
        noise.report(changed)
        probe = self._check_losses(model, mixture)
        if probe is not None and self.objective.compares_losses:
            check = partial(probe.check_repeatable, already_off=changed)
            self._once(check, "repeatable", model, mixture)
        is_replicated = self.accelerator.distributed_type is not DistributedType.NO  # also a single process of torchrun
        if probe is not None and self._may_find_unused and is_replicated:
            self._look_for_unused(probe)

    def _look_for_unused(self, probe: Probe) -> None:
        """DDP would wait for the gradients of unused parameters in the second step, unless it looks for them."""
        if unused := probe.unused_parameters():
            self.accelerator.ddp_handler.find_unused_parameters = True
            logger.info("%d parameters never get a gradient, such as %s", len(unused), unused[0])

    def _check_losses(self, model: PreTrainedModel, mixture: MixtureSettings) -> Probe | None:
        is_elsewhere = self.is_deepspeed_enabled or any(parameter.is_meta for parameter in model.parameters())
        if not isinstance(model, PreTrainedModel) or is_elsewhere:
            return None
        # fresh parameters can hide what their type sees: layers that begin as 0, losses that are all alike
        small = partial(suitability.check_model, model, documents=mixture.documents)
        self._once(small, "small copy", model, mixture)
        has_flash = "flash" in (model.config._attn_implementation or "") and self.args.device.type != "cpu"
        probe = Probe(
            model,
            vocab_size=configurations.text_part(model.config).vocab_size,
            sequence_length=mixture.sequence_length,
            autocast=self.accelerator.autocast if has_flash else nullcontext,
        )
        self._once(partial(probe.check, documents=mixture.documents), "losses", model, mixture)
        return probe

    def _once(self, check: Callable[[], None], what: str, model: PreTrainedModel, mixture: MixtureSettings) -> None:
        """Check a model, unless one was passed whose answer would be the same, whatever the values of parameters."""
        if self._passed is None:
            check()
            return
        parameter = next(model.parameters())
        kind = {
            "check": what,
            "class": f"{type(model).__module__}.{type(model).__qualname__}",
            "configuration": suitability.identity(model.config),
            "attention": model.config._attn_implementation,
            "rows": [mixture.documents, mixture.sequence_length],
            "computed_in": [str(parameter.device), str(parameter.dtype), self.args.bf16, self.args.fp16],
            "is_measured": self.objective.compares_losses,  # and without noise
        }
        self._passed.once(check, kind=files.digest_json(kind))

    def _prepare_reference(self, mixture: MixtureSettings) -> None:
        reference = self.objective.reference
        if reference is None:
            return
        token_loss.install(reference)
        if not self.is_fsdp_enabled:
            reference.to(self.args.device)
        self._check_losses(reference, mixture)
        if self.args.torch_compile:
            compilation.compile_layers(reference, **compilation.options(self.args))
        if self.objective.may_skip_reference:
            reference.to(self.args.device)  # whole: a rank that needs it may be the only one
        else:
            sharding.place_for_evaluation(reference, self.accelerator)

    # ---- the step ----

    def _optimizer_step(self, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """One optimizer step, in its order. What is yielded, the loss of a micro-batch, is back-propagated meanwhile.

        Processes exchange the sums by domain once, and before that the numbers of target tokens where the weights of
        tokens are needed before the sums are known.

        Raises:
            RunFailedError: a loss or a weight is not finite.
        """
        objective = self.objective
        forward_passes: Iterator[TokenLosses] = map(self._forward, batches)  # each when its turn comes
        if objective.is_measured_first:
            nats, forward_passes = self._measure(batches, forward_passes)
            self._update_policy(map(self._sums, nats, batches))
        else:
            self._weigh(batches)
        seen = []
        for batch, losses in zip(batches, forward_passes, strict=True):
            if objective.is_measured_after:
                seen.append(self._sums(losses.nats.detach(), batch))
            yield self._loss(losses, batch)
        if objective.is_measured_after:
            self._update_policy(seen)
        self._move_sampling_weights()

    def _forward(self, batch: Batch) -> TokenLosses:
        return token_losses(self.model_wrapped, batch)

    def _measure(
        self, batches: Sequence[Batch], forward_passes: Iterator[TokenLosses]
    ) -> tuple[list[torch.Tensor], Iterator[TokenLosses]]:
        """nats[B, T-1] of each micro-batch before any backward pass, and the forward passes that are left to train on.

        A single micro-batch is measured by the very pass that trains on it. Several take one more pass each, in the
        same mode, since their graphs do not fit into memory together.
        """
        if len(batches) == 1:
            losses = next(forward_passes)
            return [losses.nats.detach()], iter([losses])
        with torch.no_grad():
            nats = [token_nats(self.model_wrapped, batch) for batch in batches]
        self._num_measured_rows += sum(len(batch["domain_ids"]) for batch in batches)
        return nats, forward_passes

    def passes(self) -> dict[str, int]:
        """Rows that went through a model beside their training passes, over all ranks, since the first step.

        ``measured``: once more through the model itself; ``scored``: through the reference.
        """
        counts = [self._num_measured_rows, self.objective.num_scored_rows]
        totals = distributed.all_reduce_sum(torch.tensor(counts, device=self.args.device)).tolist()
        return dict(zip(("measured", "scored"), totals, strict=True))

    def _sums(self, nats: torch.Tensor, batch: Batch) -> DomainSums:
        with self.accelerator.autocast():  # the reference computes in the precision of the proxy
            return self.objective.sums(nats, batch)

    def _update_policy(self, parts: Iterable[DomainSums]) -> None:
        """Reduce what the policy sees over micro-batches and ranks, and let it see it; tokens are weighed by it."""
        total = torch.stack([torch.stack(part) for part in parts]).sum(dim=0)
        sums, step = DomainSums(*self._interruption.all_reduce_sum(total)), self.state.global_step + 1
        self.objective.update(sums, step=step, row_counts=self.loader.row_counts)
        if self._on_update is not None:
            self._on_update(step, self.objective)

    def _weigh(self, batches: Sequence[Batch]) -> None:
        """Weigh tokens by what earlier steps left."""
        counts = [count_targets(batch, num_domains=len(self.objective.names)) for batch in batches]
        self.objective.weigh(self._interruption.all_reduce_sum(torch.stack(counts).sum(dim=0)))

    def _loss(self, losses: TokenLosses, batch: Batch) -> torch.Tensor:
        """``world_size · Σ_j w_j nats_j`` over a micro-batch.

        What the model adds to the mean loss of a batch comes on top, outside Eq. 1, at the micro-batch's share of the
        rows of the step: its coefficient is that of a whole batch, however the batch is split.
        """
        row_nats = losses.nats.sum(dim=1)
        weights = self.objective.token_weights(batch["domain_ids"]).to(row_nats.dtype)
        # an infinite loss may have a finite gradient; as 0 · inf = NaN it shows in the gradient norm, on all ranks
        weights = weights + 0 * row_nats.detach().sum()
        self._count_for_the_log(row_nats.detach(), batch)
        loss = (weights * row_nats).sum()
        if losses.auxiliary is not None:
            loss = loss + len(row_nats) / self._global_batch_size * losses.auxiliary
        return self.args.world_size * loss

    def _move_sampling_weights(self) -> None:
        """Draw the very next global batch as the policy wants it."""
        weights = self.objective.sampling_weights
        if weights is None:
            return
        if not np.isfinite(weights).all():
            raise NotFiniteError(
                f"step {self.state.global_step + 1}: the policy's sampling weights are {self._by_name(weights)}, which "
                "are not all finite; stopped before the optimizer step"
            )
        self.loader.set_weights(self._by_name(weights))
        self._follow_sampling_weights()

    def _follow_sampling_weights(self) -> None:
        """Where a policy moves sampling weights, the domains' chances of being in a batch move with them."""
        if self.objective.sampling_weights is not None and self.objective.has_loss_weights:
            schedule = self.loader.schedule
            self._expect_absences(np.array(list(schedule.weights.values())), schedule.settings["mode"])

    def _by_name(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.objective.names, values.tolist(), strict=True))

    # ---- where transformers calls it ----

    def get_train_dataloader(self) -> Any:
        """The mixture loader itself: its stream already is this rank's slice, so accelerate must not shard it."""
        return self.loader

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], None]:
        """All micro-batches of one optimizer step; their losses are worked out as `compute_loss` is called."""
        batches = [self._prepare_inputs(next(epoch_iterator)) for _ in range(num_batches)]
        self._losses = self._optimizer_step(batches)
        return batches, None

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The loss of the next micro-batch of the step, which ``inputs`` is; see `_optimizer_step`.

        Raises:
            RunFailedError: a loss or a weight is not finite.
        """
        return next(self._losses)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the loss of a micro-batch and back-propagate it; after the last one, what is left of the step.

        Raises:
            RunFailedError: a loss or a weight is not finite.
        """
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:  # as for the last micro-batch alone
            next(self._losses, None)
        return loss

    # ---- log and what is not finite ----

    def _count_for_the_log(self, row_nats: torch.Tensor, batch: Batch) -> None:
        num_domains = len(self.objective.names)
        self._nats_sums += domain_sums(row_nats, batch["domain_ids"], num_domains=num_domains)
        self._token_counts += count_targets(batch, num_domains=num_domains)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """The norm over all ranks, which transformers asks for before every optimizer step, clipped or not.

        Raises:
            RunFailedError: it is not finite; the parameters and the optimizer are still those of the step before.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None and not math.isfinite(norm):
            self._stop_for_non_finite(norm)
        return norm

    def _stop_for_non_finite(self, norm: Any) -> None:
        sums = distributed.all_reduce_sum(self._nats_sums.clone()).tolist()
        bad = [repr(name) for name, nats in zip(self.objective.names, sums, strict=True) if not math.isfinite(nats)]
        if not bad and self.accelerator.scaler is not None:
            return  # float16 overflowed: the scaler skips this step and lowers its scale
        domains = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        losses = f"the loss of {domains} is not finite" if bad else "though the loss of every domain is finite"
        raise NotFiniteError(
            f"step {self.state.global_step + 1}: the gradient norm is {float(norm)}, {losses}; stopped before the "
            "optimizer step. Lower the learning rate, or check the data"
        )

    # ---- schedule and log ----

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The given schedule, or transformers' own where there is none."""
        schedule, warmup_steps = self._schedule, self.args.get_warmup_steps(num_training_steps)
        if schedule is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if getattr(self, "lr_scheduler", None) is None:

            def factor(num_steps_done: int) -> float:
                step = min(num_steps_done + 1, num_training_steps)
                return schedule.factor(step, num_steps=num_training_steps, warmup_steps=warmup_steps)

            self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add per-domain training losses and the objective's metrics to what transformers logs.

        The loss of transformers' log is that of Eq. 1 for the proxy, and the mean over ranks.
        """
        if "loss" in logs:
            sums, counts = distributed.all_reduce_sum(torch.stack([self._nats_sums, self._token_counts])).tolist()
            for name, nats, count in zip(self.objective.names, sums, counts, strict=True):
                if count:
                    logs[f"train_nats/{name}"] = nats / count
            self._nats_sums.zero_()
            self._token_counts.zero_()
            logs.update(self.objective.metrics())
        # the share of the run that is over; transformers' own counts from the last resume
        self.state.epoch = self.state.global_step / max(self.state.max_steps, 1)
        super().log(logs, start_time)

    # ---- checkpoints ----

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train to `max_steps`. ``True`` continues from the newest complete checkpoint, if there is one.

        SIGTERM and Ctrl-C let the optimizer step end, save a checkpoint and stop, on all ranks.

        Raises:
            InputError: the given checkpoint is damaged, or all of them are.
            RunFailedError: a loss, a weight or the gradient is not finite, or a checkpoint could not be saved.
            KeyboardInterrupt: stopped by a signal.
        """
        folder = self._find_checkpoint(resume_from_checkpoint)
        with self._interruption.listening():
            return super().train(**kwargs) if folder is None else self._continue_from(folder, **kwargs)

    def _find_checkpoint(self, wanted: str | bool | None) -> Path | None:
        """Rank 0 reads every byte of it once and tells the others, so that all continue from the same checkpoint."""
        is_first = self.args.process_index == 0
        if wanted is not True:
            if wanted and is_first:
                checkpoints.check(Path(wanted))
            return Path(wanted) if wanted else None
        run_folder = Path(self.args.output_dir)
        step = checkpoints.newest_complete(run_folder) if is_first else 0
        step = int(distributed.all_reduce_sum(torch.tensor(step, device=self.args.device)))
        return checkpoints.path(run_folder, step) if step else None

    def _continue_from(self, folder: Path, **kwargs: Any) -> Any:
        state = _read_state(folder)
        self.objective.load_state_dict(state["objective"])
        self.loader.load_state_dict(state["loader"])
        if self.args.process_index == 0:  # sums over all ranks
            self._num_measured_rows = state["passes"]["measured"]
            self.objective.num_scored_rows = state["passes"]["scored"]
        self._follow_sampling_weights()
        logger.info("continuing from step %s (%s)", state["step"], folder)
        if state["step"] < self.args.max_steps:
            try:
                return super().train(resume_from_checkpoint=str(folder), **kwargs)
            except pickle.UnpicklingError:  # torch's own message proposes to run whatever is in the file
                raise RunFailedError(
                    f"{folder}: a file in it holds more than numbers and was not loaded: it is not one that was saved "
                    "here, though its digest is right. Find out who put it there; delete the folder to continue without"
                ) from None
        # nothing is left to train, but transformers' loop would take one more step before it noticed
        self._load_from_checkpoint(str(folder))
        self.state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
        return None

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Warn of tensors that a checkpoint lacks, but not of tied ones, which are saved under one of their names."""
        missing = set(load_result.missing_keys)
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        loaded = {id(parameter) for name, parameter in parameters.items() if name not in missing}
        load_result.missing_keys[:] = [key for key in load_result.missing_keys if id(parameters.get(key)) not in loaded]
        super()._issue_warnings_after_load(load_result)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        run_folder, step = Path(self._get_output_dir(trial)), self.state.global_step
        folder = checkpoints.path(run_folder, step)
        if self.args.should_save:
            checkpoints.discard(folder)
        passes = self.passes()  # also a barrier: no rank may have written to it by then
        with failed_writes.removed_unless_whole(folder):
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                state = {
                    "step": step,
                    "objective": self.objective.state_dict(),
                    "loader": self.loader.state_dict(),
                    "passes": passes,
                }
                files.write_json(folder / STATE_FILE, state)
            distributed.barrier()  # every rank's files are there before the marker says so
            if self.args.should_save:
                checkpoints.complete(folder)
        if self.args.should_save:
            # transformers rotates before our marker exists: a kill in between would leave no complete checkpoint
            checkpoints.rotate(run_folder, newest=step, keep=self._save_total_limit)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        # a pickle of the arguments that nothing reads; ours are in the recipe
        (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)


def _read_state(folder: Path) -> dict[str, Any]:
    """`STATE_FILE` of a checkpoint, checked by hand: a GPU machine may lack pydantic."""
    state = files.read_json(folder / STATE_FILE)
    parts = (state.get("objective"), state.get("loader"), state.get("passes")) if isinstance(state, dict) else (None,)
    if not all(isinstance(part, dict) for part in parts) or type(state.get("step")) is not int:
        raise InputError(f"{folder / STATE_FILE}: not the state of a run; delete {folder} to continue without it")
    return state
