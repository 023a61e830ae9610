"""What makes two forward passes of one batch differ: dropout, LayerDrop, jitter. The proxy must have none of it.

The proxy is measured by one forward pass and trained by another (Algorithm 1), and any split of a batch has to give the
same step. Model types keep their probabilities in modules, in attributes of any name and in the configuration, also
where they are read again in each forward pass; hence by name, before the model is built and again afterwards.
"""

from __future__ import annotations

import logging
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from doremi.models.configurations import parts

WORDS = ("drop", "jitter")
logger = logging.getLogger(__name__)

DROPOUT = nn.modules.dropout._DropoutNd


def disable(model: nn.Module) -> list[str]:
    """Set every probability of dropout and strength of jitter to 0, in the modules and in the configuration.

    Returns:
        Names of the configuration values and modules that were not 0 before.
    """
    changed = [
        f"{name}.{key}".lstrip(".") if key != "p" else name
        for name, module in model.named_modules()
        for key in _set_to_zero(module, also=("p",) if isinstance(module, DROPOUT) else ())
    ]
    config = getattr(model, "config", None)
    return changed + (disable_in(config) if isinstance(config, PretrainedConfig) else [])


def disable_in(config: PretrainedConfig) -> list[str]:
    """Set them to 0 in a configuration and those within it; the names of the values that were not."""
    return [f"{prefix}.{key}" for prefix, part in parts(config, prefix="config") for key in _set_to_zero(part)]


def report(changed: list[str]) -> None:
    """Log what was set to 0, if anything was."""
    if changed:
        logger.warning("dropout set to 0 in the proxy, which is measured and trained on: %s", ", ".join(changed))


def _set_to_zero(owner: Any, *, also: tuple[str, ...] = ()) -> list[str]:
    """Only numbers between 0 and 1 that are no switches: ``router_jitter_noise``, not ``drop_tokens: true``."""
    changed = [
        key
        for key, value in vars(owner).items()
        if (key in also or any(word in key for word in WORDS)) and isinstance(value, float) and value > 0
    ]
    for key in changed:
        setattr(owner, key, 0.0)
    return changed
