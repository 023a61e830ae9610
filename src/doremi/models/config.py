"""A causal language model by a preset or a Hugging Face configuration: the recipe's ``models``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, model_validator

from doremi.config import (
    Section,
)
from doremi.models.presets import PRESETS


class ModelConfig(Section):
    """A causal language model: a preset, or any Hugging Face configuration."""

    preset: str | None = Field(None, description="named size of this package: tiny, or 70m to 8b")
    path: str | None = Field(None, description="Hugging Face model: folder, config.json or hub id; instead of a preset")
    init: Literal["random", "pretrained", "trained"] = Field(
        "random",
        description="random: fresh parameters from the seed; pretrained: training goes on from the parameters found at "
        "path; trained: the model at path as it is, which skips its training (reference only)",
    )
    overrides: dict[str, Any] = Field({}, description="configuration values to set on top, such as hidden_size: 128")
    attn_implementation: str = Field(
        "auto",
        description="attention kernel: auto (FlashAttention where it can be had, else transformers' choice), eager, "
        "sdpa, flash_attention_2, flex_attention",
    )

    @model_validator(mode="after")
    def _preset_or_path(self) -> ModelConfig:
        if (self.preset is None) == (self.path is None):
            raise ValueError("give exactly one of `preset` and `path`")
        if self.init != "random" and self.path is None:
            raise ValueError(f"init: {self.init} needs a `path`: presets have no trained parameters")
        return self


def _model_shorthand(value: object) -> object:
    """``proxy: tiny`` is short for ``proxy: {preset: tiny}``; what has a slash or a dot, or is a folder, is a path.

    The name of a preset is that preset, whatever lies beside the recipe.
    """
    if not isinstance(value, str):
        return value
    is_path = any(mark in value for mark in "/.\\") or (value not in PRESETS and Path(value).is_dir())
    return {"path": value} if is_path else {"preset": value}


Model = Annotated[ModelConfig, BeforeValidator(_model_shorthand)]


TINY = ModelConfig(preset="tiny")


class ModelsConfig(Section):
    """The three models of DoReMi. Reference and proxy are usually the same small size, main is the large one."""

    reference: Model = Field(
        TINY, description="the model whose losses the proxy's are compared with; absent: as the proxy, or tiny"
    )
    proxy: Model = Field(
        TINY,
        description="the model trained with Group DRO; must share the tokenizer; absent: as the reference, or tiny",
    )
    main: Model = Field(
        TINY, description="the model trained on the domain weights, and on each baseline; absent: as the proxy"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _absent_models_are_like_the_others(cls, value: object, handler: ModelWrapValidatorHandler) -> ModelsConfig:
        """A forgotten main model that was a toy beside the proxy would be compared for nothing."""
        found = handler(value)
        given = {name: getattr(found, name) for name in found.model_fields_set}
        if "proxy" not in given and "reference" in given:
            init = given["reference"].init
            given["proxy"] = given["reference"].model_copy(update={"init": "random" if init == "trained" else init})
        if "proxy" in given:
            given = {"reference": given["proxy"], "main": given["proxy"]} | given
        return handler(given)

    @model_validator(mode="after")
    def _only_the_reference_is_trained_already(self) -> ModelsConfig:
        for name in ("proxy", "main"):
            if getattr(self, name).init == "trained":
                raise ValueError(f"{name}: init: trained is for the reference; use pretrained to go on from a model")
        return self
