"""What ``training.arguments`` asks of transformers, checked before the first step instead of when it is first used."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_reporting_integration_callbacks

from doremi.errors import InputError
from doremi.models import compilation
from doremi.models.pretrained import FOREIGN_ERRORS, reason
from doremi.training import arguments, passed_through

if TYPE_CHECKING:
    from doremi.config import RunName
    from doremi.training.config import TrainingConfig

OF_THE_MACHINE = (
    "tf32",
    "deepspeed",
    "torch_compile",
)  # refused by transformers where the device or the package is not there
UNTYPED = ("fsdp", "parallelism_config")  # transformers takes more than their annotation says


class _UnattachedArguments(TrainingArguments):
    """Arguments of a process that meets no other and takes no device: there may be hours until the training."""

    @property
    def _setup_devices(self) -> torch.device:
        self.distributed_state, self._n_gpu = None, 1
        return torch.device("cpu")


def check_values(config: TrainingConfig, run: RunName) -> None:
    """What can be said of the arguments of a run on any machine: types, names, and what cannot be combined.

    Raises:
        InputError: names the argument.
    """
    passed_through.check(config.arguments)
    for key, value in config.arguments.items():
        _check_type(key, value)
    kept = {key: value for key, value in config.arguments.items() if not key.startswith(OF_THE_MACHINE)}
    built = _build(config, run, kept | {"use_cpu": True})
    for key, names in _names(built).items():
        if key in kept and (unknown := sorted(names - _KNOWN[key]())):
            known = ", ".join(sorted(_KNOWN[key]()))
            raise InputError(f"training.arguments.{key}: {unknown[0]!r} is not one of {known}")


def check_machine(config: TrainingConfig, run: RunName, model: PreTrainedModel) -> None:
    """What the arguments of a run ask of this machine: packages, its device, and the model (on the meta device).

    Raises:
        InputError: names the argument.
    """
    kept = arguments.compilable(config.arguments, warn=False)
    built = _build(config, run, kept)
    with _blamed("report_to"):
        for callback in get_reporting_integration_callbacks(built.report_to):
            callback()
    with _blamed("optim"):
        _build_optimizer(built, model)
    _check_device(built)
    _check_packages(built)
    _check_model(built, model)


# ---- on any machine ----


def _check_type(key: str, value: Any) -> None:
    """By transformers' annotations, which nothing enforces; the value is not repeated, it may be a token."""
    if key in UNTYPED:
        return
    try:
        _types()[key].validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise InputError(f"training.arguments.{key}: {error.errors()[0]['msg']}") from None
    except TypeError:
        raise InputError(f"training.arguments.{key}: a {type(value).__name__} is no value of it") from None


@cache
def _types() -> dict[str, TypeAdapter[Any]]:
    return {
        key: TypeAdapter(hint)
        for key, hint in typing.get_type_hints(TrainingArguments).items()
        if key in inspect.signature(TrainingArguments).parameters and key not in UNTYPED
    }


def _build(config: TrainingConfig, run: RunName, given: dict[str, Any]) -> TrainingArguments:
    settings = arguments.settings(
        config.model_copy(update={"arguments": given}), folder=Path("unused"), seed=0, name=run
    )
    try:
        return _UnattachedArguments(**settings)
    except FOREIGN_ERRORS as error:
        key = next((key for key in given if _fails_alone(key, given[key])), None)
        where = f"training.arguments.{key}" if key else "training.arguments"
        raise InputError(f"{where}: {reason(error)}") from None


def _fails_alone(key: str, value: Any) -> bool:
    try:
        _UnattachedArguments(**{"output_dir": "unused", "use_cpu": not torch.cuda.is_available(), key: value})
    except FOREIGN_ERRORS:
        return True
    return False


_KNOWN = {
    "report_to": lambda: set(INTEGRATION_TO_CALLBACK),
    "log_level": lambda: {"debug", "detail", "info", "warning", "error", "critical", "passive"},
    "log_level_replica": lambda: {"debug", "detail", "info", "warning", "error", "critical", "passive"},
    "ddp_backend": lambda: set(torch.distributed.Backend.backend_list),
}


def _names(built: TrainingArguments) -> dict[str, set[str]]:
    """What is looked up by name when it is first used."""
    single = ("log_level", "log_level_replica", "ddp_backend")
    named = {key: {value} for key in single if (value := getattr(built, key)) is not None}
    return {"report_to": set(built.report_to), **named}


# ---- on this machine ----


@contextmanager
def _blamed(key: str) -> Iterator[None]:
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise InputError(f"training.arguments.{key}: {reason(error)}") from None


def _build_optimizer(built: TrainingArguments, model: PreTrainedModel) -> None:
    """As the trainer does, but for a single parameter: wrong ``optim_args`` show when it is made."""
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(built, model)
    is_class = isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    if is_class and not settings.keys() & {"params", "model", "optimizer_dict"}:
        kind([torch.nn.Parameter(torch.zeros(2, 2))], **settings)


def _check_device(built: TrainingArguments) -> None:
    if built.fp16 and (built.use_cpu or not torch.cuda.is_available()):
        raise InputError("training.arguments.fp16: float16 is computed on a GPU only; use bf16, or leave it out")
    if built.torch_compile:
        with _blamed("torch_compile_mode" if built.torch_compile_mode else "torch_compile_backend"):
            torch.compile(torch.nn.Identity(), **compilation.options(built))


def _check_packages(built: TrainingArguments) -> None:
    from transformers.utils import is_liger_kernel_available

    if built.use_liger_kernel and not is_liger_kernel_available():
        raise InputError("training.arguments.use_liger_kernel: liger-kernel is not installed: pip install liger-kernel")


def _check_model(built: TrainingArguments, model: PreTrainedModel) -> None:
    if built.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise InputError(
            f"training.arguments.gradient_checkpointing: models of type {model.config.model_type} cannot do it; "
            "leave it out"
        )
    wanted = built.fsdp_config.get("transformer_layer_cls_to_wrap") if isinstance(built.fsdp_config, dict) else None
    there = {type(module).__name__ for module in model.modules()}
    if built.fsdp and (absent := sorted(({wanted} if isinstance(wanted, str) else set(wanted or ())) - there)):
        raise InputError(
            f"training.arguments.fsdp_config.transformer_layer_cls_to_wrap: models of type {model.config.model_type} "
            f"have no {absent[0]}; leave it out"
        )
