"""Take one model type through what a run does with it, and set each number beside the oracle's."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from doremi.errors import InputError
from doremi.mixture import MixtureSettings
from doremi.models import attention, loading, noise, suitability
from doremi.models.config import ModelConfig
from doremi.models.probes import Probe
from doremi.models.size import size_of
from doremi.models.token_loss import token_losses, token_nats
from doremi.training.signals import ExcessLoss
from doremi.training.trainer import DoReMiTrainer
from tests.conformance import oracle, zoo
from tests.training.fakes import InMemoryStore, arguments

VOCAB_SIZE = 311  # of the corpus, not of the configuration: fitting the one to the other is part of what is tried
LENGTH, ROWS, STEPS = 24, 6, 2
LONG = zoo.MAX_LENGTH + 16  # beyond what the configuration says
EOS = 0
DOCUMENT_STARTS = (7, 16)  # of the second and the third document of a row
SEED, REFERENCE_SEED = 1, 2

FLOPS_TOLERANCE = 0.03
FLOPS = ("right", "null", "counted")
# PhiMoE's strength of noise is also the width of the band of experts that are chosen from, in evaluation too
NOISE_IS_PART = {"phimoe": {"router_jitter_noise": 0.0}}
LIMITS = {  # what the figures of a type that is right stay below
    "token losses": 1e-5,
    "mean loss with load balancing": 1e-5,
    "an earlier loss moves by": 1e-5,
    "a later document moves by": 1e-5,
    "an earlier loss of a long row moves by": 1e-5,
    "parameters after 2 steps": 1e-3,
    "parameters after 2 steps of 3 micro-batches": 1e-3,
    "alpha": 1e-5,
    "alpha with 3 micro-batches": 1e-5,
    "parameters without gradient that no probe saw": 0,
    "losses after loading": 1e-5,
}


@dataclass
class Findings:
    """What a type does. Figures are relative errors; a refusal is the message of the InputError."""

    model_type: str
    refusal: str | None = None
    refusal_when_separate: str | None = None
    figures: dict[str, float] = field(default_factory=dict)
    flops: str = ""  # what a plan counts for a forward pass, beside what PyTorch counts product by product
    num_parameters: int | None = None
    num_outputs: int | None = None
    crash: str | None = None  # any other error: always wrong

    @property
    def wrong(self) -> list[str]:
        """What is silently wrong with it, or fails otherwise than by a refusal; nothing, if it is right."""
        found = [f"crash: {self.crash}"] if self.crash else []
        if self.flops not in ("", *FLOPS):
            found.append(f"FLOPs: {self.flops}")
        for name, figure in self.figures.items():
            if name in LIMITS and not figure <= LIMITS[name]:
                found.append(f"{name}: {figure:.2g}, limit {LIMITS[name]}")
        return found


class Store(InMemoryStore):
    """Three domains of other tokens."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.names = ("a", "b", "c")
        self.tokens = {
            name: rng.integers(1, 60 + 100 * index, size=20 * LENGTH).astype(np.uint16)
            for index, name in enumerate(self.names)
        }


STORE = Store()
MIXTURE = MixtureSettings(sequence_length=LENGTH)


def examine(model_type: str, folder: Path) -> Findings:
    """Everything, in the order of a run."""
    found = Findings(model_type)
    try:
        config = model_config(model_type, folder)
        found.refusal = refusal(lambda: _accept(config, documents="joined"))
        if found.refusal is None:
            found.refusal_when_separate = refusal(lambda: _accept(config, documents="separate"))
            _examine_accepted(found, config, folder)
        else:
            _examine_refused(found)
    except Exception as error:  # noqa: BLE001
        found.crash = f"{type(error).__name__}: {str(error)[:300]}"
    return found


def model_config(model_type: str, folder: Path) -> ModelConfig:
    """The type as a recipe names it: by the path of a ``config.json``."""
    return ModelConfig(path=str(zoo.write(model_type, folder / "config")))


def refusal(check: Callable[[], Any]) -> str | None:
    """The message that it refuses with."""
    try:
        check()
    except InputError as error:
        return str(error)
    return None


def _accept(config: ModelConfig, *, documents: str) -> None:
    suitability.check(config, sequence_length=LENGTH, documents=documents)  # type: ignore[arg-type]
    build(config, seed=SEED)


def build(config: ModelConfig, *, seed: int, noisy: bool = True, length: int = LENGTH) -> Any:
    """As a run builds a model, the proxy with ``noisy=False``; then disturbed so that every path matters."""
    hf_config = loading.configure(config, vocab_size=VOCAB_SIZE, eos_token_id=EOS, sequence_length=length)
    if not noisy:
        noise.disable_in(hf_config)
    implementation = attention.resolve("auto", precision="float32", hf_config=hf_config)
    model = loading.build(config, hf_config, seed=seed, attention=implementation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        zoo.disturb(model)
    return model


def batch_of_rows(*, separate: bool = False, length: int = LENGTH) -> oracle.Batch:
    """Two rows of three documents each, with ``position_ids`` that restart where they are separate."""
    rng = np.random.default_rng(1)
    ids = torch.from_numpy(rng.integers(1, VOCAB_SIZE, size=(2, length)))
    ids[:, DOCUMENT_STARTS] = EOS
    batch = {"input_ids": ids, "labels": ids.clone()}
    if separate:
        starts = torch.zeros(length, dtype=torch.int64)
        for start in DOCUMENT_STARTS:
            starts[start:] = start
        batch["position_ids"] = (torch.arange(length) - starts).expand(2, -1).contiguous()
    return batch


# ---- a type that is refused ----


def _examine_refused(found: Findings) -> None:
    """Whether there was reason to: it fails in plain transformers as well, or sees later tokens."""
    try:
        model = zoo.model(found.model_type, vocab_size=zoo.VOCAB_SIZE).eval()
        found.figures["an earlier loss moved by"] = _later_tokens(model, vocab_size=zoo.VOCAB_SIZE)
    except Exception as error:  # noqa: BLE001
        found.figures["plain transformers fails"] = 1.0
        del error


# ---- a type that is accepted ----


def _examine_accepted(found: Findings, config: ModelConfig, folder: Path) -> None:
    model = build(config, seed=SEED)
    found.num_parameters = model.num_parameters()
    outputs = model.get_output_embeddings()
    found.num_outputs = None if outputs is None else outputs.weight.shape[0]
    figures = found.figures
    figures["token losses"] = _token_losses(copy.deepcopy(model))
    figures.update(_load_balancing(config))
    figures["an earlier loss moves by"] = _later_tokens(copy.deepcopy(model))
    separate = "a later document moves by" if found.refusal_when_separate is None else "a later document moved by"
    figures[separate], figures["when joined"] = _other_documents(copy.deepcopy(model), found)
    long = build(config, seed=SEED, length=LONG)
    figures["an earlier loss of a long row moves by"] = _later_tokens(long, length=LONG)
    figures.update(_proxy(found, config, folder))
    found.flops = _flops(copy.deepcopy(model).eval())


def _token_losses(model: Any) -> float:
    """Against the model's own logits, with some labels masked."""
    batch = batch_of_rows()
    batch["labels"][0, 5:9] = -100
    own = copy.deepcopy(model).eval()
    with torch.no_grad():
        return oracle.relative_error(token_nats(model.eval(), batch), oracle.token_losses(own, batch))


def _load_balancing(config: ModelConfig) -> dict[str, float]:
    """Of a mixture of experts: mean loss and what it adds, against the loss that the model itself gives with labels."""
    hf_config = loading.configure(config, vocab_size=VOCAB_SIZE, eos_token_id=EOS, sequence_length=LENGTH)
    if not hasattr(hf_config.get_text_config(), "output_router_logits"):
        return {}
    model = build(config.model_copy(update={"overrides": {"output_router_logits": True}}), seed=SEED).eval()
    batch = batch_of_rows()
    with torch.no_grad():
        try:
            expected = copy.deepcopy(model)(input_ids=batch["input_ids"], labels=batch["labels"], use_cache=False).loss
        except IndexError:  # Flint's own forward finds no router of its
            return {}
        losses = token_losses(model, batch)
    assert losses.auxiliary is not None
    return {"mean loss with load balancing": oracle.relative_error(losses.nats.mean() + losses.auxiliary, expected)}


def _later_tokens(model: Any, *, vocab_size: int = VOCAB_SIZE, length: int = LENGTH) -> float:
    """How much an earlier loss moves when a later token is another one."""
    losses = functools.partial(oracle.token_losses, model.eval())
    batch = batch_of_rows(length=length)
    batch = {key: value.clamp(max=vocab_size - 1) for key, value in batch.items()}
    return max(
        oracle.largest_change(losses, batch, position=position, kept=slice(position), vocab_size=vocab_size)
        for position in (length - 1, length // 2, 3)
    )


def _other_documents(model: Any, found: Findings) -> tuple[float, float]:
    """How much a loss of the second document moves when a token of the first is another one; and when joined.

    The last token of the first document is what a convolution over few tokens still sees.
    """
    first, second = DOCUMENT_STARTS
    losses = functools.partial(token_nats, model.eval())

    def change(batch: oracle.Batch) -> float:
        return max(
            oracle.largest_change(losses, batch, position=position, kept=slice(first, second), vocab_size=VOCAB_SIZE)
            for position in (1, first - 1)
        )

    try:
        separate = change(batch_of_rows(separate=True))
    except TypeError:  # it takes no positions
        if found.refusal_when_separate is None:
            raise
        separate = float("nan")
    return separate, change(batch_of_rows())


def _proxy(found: Findings, config: ModelConfig, folder: Path) -> dict[str, float]:
    """Two steps of the proxy, in one and in three micro-batches; then saved and loaded."""
    start = build(config.model_copy(update={"overrides": NOISE_IS_PART.get(found.model_type, {})}), seed=SEED)
    expected, reference = copy.deepcopy(start), build(config, seed=REFERENCE_SEED)
    alphas = oracle.proxy_steps(expected, copy.deepcopy(reference), _global_batches(), num_domains=len(STORE.names))
    moved = flat(expected) - flat(start)
    figures = {"parameters without gradient that no probe saw": _overlooked(expected, start)}
    for accumulation, suffix in ((1, ""), (3, " of 3 micro-batches")):
        trainer, actual_alphas = _train_proxy(
            build(config, seed=SEED, noisy=False), copy.deepcopy(reference), folder, accumulation=accumulation
        )
        error = flat(trainer.model) - flat(expected)
        figures[f"parameters after 2 steps{suffix}"] = float(error.norm() / moved.norm())
        figures[f"alpha{suffix.replace(' of', ' with')}"] = max(
            float((actual - wanted).abs().max()) for actual, wanted in zip(actual_alphas, alphas, strict=True)
        )
    figures["losses after loading"] = _saved_and_loaded(trainer, folder / "saved")
    return figures


def _overlooked(trained: Any, model: Any) -> float:
    """How many parameters got no gradient though the probe says that all do: DDP would wait for theirs for ever."""
    without = sum(p.requires_grad and p.grad is None for p in trained.parameters())
    return 0.0 if Probe(model, vocab_size=VOCAB_SIZE).unused_parameters() else float(without)


def _flops(model: Any) -> str:
    """``right``, ``null`` where they are not known, ``counted`` where PyTorch fails, else the ratio, or ``crash``."""
    expected = oracle.forward_flops(model, batch_of_rows()["input_ids"][:1])
    try:
        counted = size_of(model).forward_flops(LENGTH)
    except Exception:  # noqa: BLE001
        return "crash"
    if math.isnan(counted):
        return "null"
    if expected is None:
        return "counted"
    return "right" if abs(counted / expected - 1) < FLOPS_TOLERANCE else f"×{counted / expected:.2g}"


def _global_batches() -> list[oracle.Batch]:
    """What the trainer will draw."""
    weights = dict.fromkeys(STORE.names, 1.0)
    schedule = MIXTURE.schedule(STORE, STORE.names, weights=weights, global_batch_size=ROWS, seed=3)
    return list(itertools.islice(MIXTURE.loader(STORE, schedule, micro_batch_size=ROWS), STEPS))


def _train_proxy(model: Any, reference: Any, folder: Path, *, accumulation: int) -> tuple[Any, list[torch.Tensor]]:
    alphas: list[torch.Tensor] = []
    objective = ExcessLoss(reference, names=STORE.names, step_size=oracle.STEP_SIZE, smoothing=oracle.SMOOTHING)
    trainer = DoReMiTrainer(
        model,
        objective=objective,
        corpus=STORE,
        args=arguments(
            folder,
            micro_batch=ROWS // accumulation,
            accumulation=accumulation,
            steps=STEPS,
            learning_rate=oracle.LEARNING_RATE,
            adam_epsilon=oracle.ADAM_EPSILON,
            weight_decay=0.0,
            warmup_steps=0,
            lr_scheduler_type="constant",
            max_grad_norm=1e9,
            optim="adamw_torch",
            save_strategy="no",
            logging_strategy="no",
        ),
        mixture=MIXTURE,
        on_update=lambda step, objective: alphas.append(torch.from_numpy(objective.dro.weights.copy())),
    )
    trainer.train()
    return trainer, alphas


def flat(model: Any) -> torch.Tensor:
    """All its parameters."""
    return torch.cat([parameter.detach().double().flatten() for parameter in model.parameters()])


def _saved_and_loaded(trainer: Any, folder: Path) -> float:
    from transformers import AutoModelForCausalLM

    trainer.save_model(str(folder))
    loaded, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    batch = batch_of_rows()
    with torch.no_grad():
        return oracle.relative_error(
            oracle.token_losses(loaded.eval(), batch), oracle.token_losses(trainer.model.eval(), batch)
        )
