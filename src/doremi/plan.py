"""What a recipe will cost, before anything runs: tokens, parameters, FLOPs, epochs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from doremi import weight_specs
from doremi.errors import InputError
from doremi.experiment import RUNS, weights_setting
from doremi.planned_runs import trains_alike
from doremi.recipe import Recipe, RunName
from doremi.report.escaping import visible
from doremi.run_directory import RunDirectory
from doremi.weight_specs import WeightsSpec

if TYPE_CHECKING:
    from doremi.corpus import TokenStore


@dataclass(frozen=True)
class ModelSize:
    """What the FLOPs of a forward pass follow from."""

    num_parameters: int
    num_matmul_parameters: int  # without embeddings that are only looked up
    num_layers: int
    hidden_size: int

    def forward_flops_per_token(self, sequence_length: int) -> float:
        """2 per matrix parameter, and 4 · layers · width · length for full attention scores and values."""
        return 2 * self.num_matmul_parameters + 4 * self.num_layers * self.hidden_size * sequence_length


class _Stage(NamedTuple):
    label: str
    model: RunName
    weights: WeightsSpec | None  # what it samples with; None: not known before the proxy is trained


def describe(recipe: Recipe, out: Path) -> str:
    """The stages of the recipe and, for each: tokens, parameters, FLOPs, and epochs of each domain."""
    store = _prepared_store(recipe, out)
    vocab_size = store.vocab_size if store else _vocab_size(recipe)
    sizes = {name: measure(recipe, name, vocab_size=vocab_size) for name in RUNS}
    lines = ["Stages", _prepare_line(recipe, store)]
    for stage in _stages(recipe, out):
        training, size = recipe.training.for_run(stage.model), sizes[stage.model]
        tokens = training.num_tokens
        flops = 3 * size.forward_flops_per_token(training.sequence_length) * tokens
        if stage.model == "proxy":
            flops += sizes["reference"].forward_flops_per_token(training.sequence_length) * tokens
        lines.append(
            f"  {stage.label:<31} {tokens:>16,} tokens {size.num_parameters:>14,} parameters {flops:9.2e} FLOPs"
        )
        if store is not None:
            lines.append(f"    epochs: {_epochs_line(recipe, stage, tokens, store)}")
    return "\n".join(lines)


def measure(recipe: Recipe, run: RunName, *, vocab_size: int) -> ModelSize:
    """Sizes of one of the recipe's models, built without memory on torch's meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    from doremi.training import models

    hf_config = models.configure(
        getattr(recipe.models, run),
        vocab_size=vocab_size,
        eos_token_id=0,
        sequence_length=recipe.training.for_run(run).sequence_length,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(hf_config)
    head = model.get_output_embeddings()
    looked_up = sum(parameter.numel() for parameter in model.get_input_embeddings().parameters())
    total = model.num_parameters()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    return ModelSize(
        num_parameters=total,
        num_matmul_parameters=total if tied else total - looked_up,
        num_layers=hf_config.num_hidden_layers,
        hidden_size=hf_config.hidden_size,
    )


def epochs(weights: Mapping[str, float], num_tokens: int, store: TokenStore) -> dict[str, float]:
    """How often each domain's text is seen when ``num_tokens`` are drawn with ``weights``."""
    return {name: weight * num_tokens / store.num_tokens(name) for name, weight in weights.items()}


def _stages(recipe: Recipe, out: Path) -> list[_Stage]:
    reference, answer = recipe.weights.reference, RunDirectory(out).weights
    shared = trains_alike(recipe, "reference", "main")
    stages = [
        _Stage("train reference (and baseline)" if shared else "train reference", "reference", reference),
        _Stage("train proxy", "proxy", "uniform"),
        _Stage("train main", "main", str(answer) if answer.exists() else None),
    ]
    if not shared:
        stages.append(_Stage("train baseline", "main", reference))
    return [*stages, *(_Stage(f"train {weight_specs.label(spec)}", "main", spec) for spec in recipe.weights.baselines)]


def _vocab_size(recipe: Recipe) -> int:
    from doremi.corpus import tokenizers

    config = recipe.corpus.tokenizer
    if config.path is None:
        return config.vocab_size
    return tokenizers.load(config.path, eos_token=config.eos_token).entry.vocab_size


def _prepare_line(recipe: Recipe, store: TokenStore | None) -> str:
    if store is None:
        inputs = recipe.corpus.store or ", ".join(item.source for item in recipe.corpus.inputs)
        return f"  prepare corpus                  {inputs}: tokens and epochs are known once `doremi prepare` has run"
    total = sum(store.num_tokens(name) for name in store.names)
    return f"  prepare corpus                  {total:>16,} tokens in {len(store.names)} domains (done)"


def _epochs_line(recipe: Recipe, stage: _Stage, tokens: int, store: TokenStore) -> str:
    if stage.weights is None or weight_specs.needs_answer(stage.weights):
        return "known once the proxy has given the weights"
    setting = weights_setting(recipe, store)
    reference = weight_specs.resolve(recipe.weights.reference, setting, store.names)
    drawn = weight_specs.resolve(stage.weights, setting, reference.names)
    return ", ".join(f"{visible(name)} {value:.2f}" for name, value in epochs(drawn, tokens, store).items())


def _prepared_store(recipe: Recipe, out: Path) -> TokenStore | None:
    from doremi.corpus import TokenStore

    for folder in (RunDirectory(out).corpus, recipe.corpus.store):
        with suppress(InputError):
            if folder is not None:
                return TokenStore.open(folder)
    return None
