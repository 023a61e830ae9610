"""Experiment trackers, named in `report_to`: each model of a run directory is one run of theirs, continued on resume.

The callbacks of transformers were made for one training in a process. What they do with the next one, by themselves:

- W&B, SwanLab and Comet ML go on in the run of the model before, under its name.
- TensorBoard writes into a folder named after the time, so that a resumed model is two runs; with
  TENSORBOARD_LOGGING_DIR all models write into that one folder.
- MLflow, ClearML, Neptune and Trackio begin a run each, under `run_name`, which is all that they need from here.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from transformers import Trainer, TrainerCallback
from transformers.integrations import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
)

from doremi import files, launch
from doremi.errors import InputError, first_line

KEY = "training.arguments.report_to"
IDENTITY = "tracker.json"  # in the folder of a model: under which id a tracker knows it
MODULES = {"azure_ml": "azureml", "flyte": "flytekit"}  # of trackers that are not called like theirs
TENSORBOARD = "tensorboard"  # folder of its events, in that of the model


def check(arguments: Mapping[str, Any]) -> None:
    """Refuse a tracker of ``training.arguments`` that could not record anything; asks nobody.

    Raises:
        InputError: no such tracker, or one that is not installed.
    """
    named = _named(arguments.get("report_to"))
    for name in named:
        _check_installed(name)
    try:
        for callback in get_reporting_integration_callbacks(named):
            callback()  # which says what else it needs; it connects to nothing
    except (ImportError, RuntimeError, ValueError) as error:
        raise InputError(f"{KEY}: {first_line(error)}; or leave report_to out") from None


def log_in(arguments: Mapping[str, Any]) -> None:
    """Log in to W&B where it is to record, before there is anything to record; asks the network.

    Raises:
        InputError: there is no login.
    """
    named = _named(arguments.get("report_to"))
    if "wandb" in named and launch.is_first() and os.environ.get("WANDB_MODE", "online") == "online":
        import wandb

        with _wandb_errors_reported():
            wandb.login()  # asks on a terminal; now, and not in the middle of the run


def _check_installed(name: str) -> None:
    module = MODULES.get(name, name)
    if name in INTEGRATION_TO_CALLBACK and name != "kubeflow" and importlib.util.find_spec(module) is None:
        raise InputError(
            f"{KEY}: {name} needs the package {module}, which is not installed; install it, or leave {name} out"
        )


def _named(report_to: Any) -> list[str]:
    """The trackers that TrainingArguments makes of its ``report_to``."""
    named = [report_to] if not isinstance(report_to, list | tuple | None) else list(report_to or [])
    if not all(isinstance(name, str) for name in named):
        raise InputError(
            f"{KEY}: expected the name of a tracker, such as wandb, or a list of names; got {report_to!r:.60}"
        )
    if named == ["all"]:
        return get_available_reporting_integrations()
    return [] if named == ["none"] else named


@contextmanager
def recording(trainer: Trainer, *, group: str, folder: Path) -> Iterator[None]:
    """Give what ``trainer`` trains within the block a run of its own in every tracker, called ``group/run_name``.

    Args:
        trainer: its `args.run_name` is the name of the model among those of the group.
        group: what the models of one run directory have in common, such as the name of the recipe.
        folder: of the model; a model that is trained on in the same folder is the same run of W&B and TensorBoard.

    Raises:
        InputError: W&B refuses to begin a run.
    """
    args, model = trainer.args, trainer.args.run_name
    args.run_name = f"{group}/{model}"
    callbacks = _callbacks(trainer)
    if "tensorboard" in callbacks:
        callbacks["tensorboard"].logging_dir = str(_events(folder, group, model))
    if "wandb" in callbacks and launch.is_first():
        _begin_wandb(group=group, name=args.run_name, folder=folder)
    is_complete = False
    try:
        yield
        is_complete = True
    finally:
        args.run_name = model
        if launch.is_first():
            _finish(callbacks, is_complete=is_complete)


def _callbacks(trainer: Trainer) -> dict[str, TrainerCallback]:
    """Those of the trainer that write to a tracker, by its name."""
    names = {kind: name for name, kind in INTEGRATION_TO_CALLBACK.items()}
    found = trainer.callback_handler.callbacks
    return {names[type(callback)]: callback for callback in found if type(callback) in names}


def _events(folder: Path, group: str, model: str) -> Path:
    chosen = os.environ.get("TENSORBOARD_LOGGING_DIR")
    if chosen is None:
        return folder / TENSORBOARD
    return Path(chosen).expanduser() / _component(group) / _component(model)


def _component(name: str) -> str:
    """A name as one component of a path, which cannot lead out of its folder."""
    encoded = quote(name, safe=" ,()")
    return encoded.replace(".", "%2E") if not encoded.strip(".") else encoded


def _begin_wandb(*, group: str, name: str, folder: Path) -> None:
    """Begin a run, or take up that of the folder; transformers' callback then writes to it instead of to its own."""
    import wandb

    with _wandb_errors_reported():
        wandb.init(
            project=os.environ.get("WANDB_PROJECT", "huggingface"),  # transformers' default
            group=os.environ.get("WANDB_RUN_GROUP", group),
            name=name,
            id=_identity(folder),
            resume="allow",
        )


def _identity(folder: Path) -> str:
    """An id that goes with the folder: a model that is trained anew, in an emptied folder, is another run."""
    path = folder / IDENTITY
    if not path.exists():
        files.write_json(path, {"wandb": secrets.token_hex(8)})
    content = files.read_json(path)
    if not (isinstance(content, dict) and isinstance(content.get("wandb"), str)):
        raise InputError(f'{path}: expected {{"wandb": id}}; delete it, and W&B gets a new run for this model')
    return content["wandb"]


def _finish(callbacks: Mapping[str, Any], *, is_complete: bool) -> None:
    """End the runs that would go on with the next model."""
    if "wandb" in callbacks:
        import wandb

        wandb.finish(exit_code=0 if is_complete else 1)
    if "swanlab" in callbacks:
        import swanlab

        swanlab.finish()
    experiment = getattr(callbacks.get("comet_ml"), "_experiment", None)
    if experiment is not None:
        experiment.end()


@contextmanager
def _wandb_errors_reported() -> Iterator[None]:
    import wandb

    try:
        yield
    except wandb.Error as error:
        raise InputError(
            f"{KEY}: W&B: {first_line(error)}; or set WANDB_MODE=offline, which records into the folder wandb"
        ) from None
