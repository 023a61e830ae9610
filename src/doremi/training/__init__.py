"""Model + batches + objective to checkpoint."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from doremi.training.schedules import LearningRateSchedule
    from doremi.training.signals import ExcessLoss, Objective, TokenMean
    from doremi.training.trainer import DoReMiTrainer

__all__ = ["DoReMiTrainer", "ExcessLoss", "LearningRateSchedule", "Objective", "TokenMean"]


def __getattr__(name: str) -> Any:  # importing a part of this package must not import torch for all of it
    if name == "DoReMiTrainer":
        from doremi.training.trainer import DoReMiTrainer

        return DoReMiTrainer
    if name == "LearningRateSchedule":
        from doremi.training.schedules import LearningRateSchedule

        return LearningRateSchedule
    if name in __all__:
        from doremi.training import signals

        return getattr(signals, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
