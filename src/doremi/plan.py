"""What a recipe will cost, before anything runs: tokens, parameters, FLOPs, epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from doremi.errors import InputError
from doremi.recipe import ModelConfig, Recipe, RunName, TrainingConfig
from doremi.run_directory import RunDirectory

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


def describe(recipe: Recipe, out: Path) -> str:
    """The stages of the recipe and, for each: tokens, parameters, FLOPs, and epochs of each domain."""
    store = _prepared_store(recipe, out)
    lines = ["Stages", _prepare_line(recipe, store)]
    sizes = {name: measure(getattr(recipe.models, name), recipe, name) for name in ("reference", "proxy", "main")}
    for label, run in _stage_runs(recipe):
        training, size = recipe.training.for_run(run), sizes[run]
        tokens = training.steps * training.global_batch_size * training.sequence_length
        flops = 3 * size.forward_flops_per_token(training.sequence_length) * tokens
        if run == "proxy":
            flops += sizes["reference"].forward_flops_per_token(training.sequence_length) * tokens
        lines.append(f"  {label:<22} {tokens:>16,} tokens  {size.num_parameters:>14,} parameters  {flops:9.2e} FLOPs")
        lines.extend(_epochs_lines(recipe, run, training, store))
    return "\n".join(lines)


def measure(config: ModelConfig, recipe: Recipe, run: RunName) -> ModelSize:
    """Sizes of a model, built without memory on torch's meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    from doremi.training import models

    hf_config = models.configure(
        config,
        vocab_size=recipe.corpus.tokenizer.vocab_size,
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


def _stage_runs(recipe: Recipe) -> list[tuple[str, RunName]]:
    runs: list[tuple[str, RunName]] = [
        ("train reference", "reference"),
        ("train proxy", "proxy"),
        ("train main", "main"),
    ]
    from doremi.pipeline import trains_alike

    if trains_alike(recipe, "reference", "main"):
        runs[0] = ("train reference=baseline"[:22], "reference")
    else:
        runs.append(("train baseline", "main"))
    return [*runs, *((f"train {Path(spec).stem}", "main") for spec in recipe.weights.baselines)]


def _prepare_line(recipe: Recipe, store: TokenStore | None) -> str:
    if store is None:
        inputs = ", ".join(item.path or item.reader or "" for item in recipe.corpus.inputs)
        return f"  prepare corpus         {inputs}: tokens and epochs are known once `doremi prepare` has run"
    total = sum(store.num_tokens(name) for name in store.names)
    return f"  prepare corpus         {total:>16,} tokens in {len(store.names)} domains (done)"


def _epochs_lines(recipe: Recipe, run: RunName, training: TrainingConfig, store: TokenStore | None) -> Iterator[str]:
    if store is None:
        return
    from doremi import weights
    from doremi.pipeline import resolve_weights

    reference = resolve_weights(recipe.weights.reference, store, store.names)
    drawn = weights.uniform(reference.names) if run == "proxy" else reference
    tokens = training.steps * training.global_batch_size * training.sequence_length
    what = "uniform sampling" if run == "proxy" else "reference weights"
    shown = ", ".join(f"{name} {value:.2f}" for name, value in epochs(drawn, tokens, store).items())
    yield f"    epochs with {what}: {shown}"


def _prepared_store(recipe: Recipe, out: Path) -> TokenStore | None:
    from doremi.corpus import TokenStore

    try:
        return TokenStore.open(RunDirectory(out).corpus)
    except InputError:
        return None
