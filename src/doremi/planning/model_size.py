"""Parameters of a recipe's models and the FLOPs that follow from them, without any memory for the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from doremi.recipe import Recipe, RunName

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class ModelSize:
    """What FLOPs and memory follow from."""

    num_parameters: int
    num_matmul_parameters: int  # that a token is multiplied with: no biases, no embeddings that are only looked up
    num_layers: int
    hidden_size: int  # of the residual stream
    attention_size: int  # heads × size of a head
    mlp_size: int
    num_mlp_matrices: int  # 2, or 3 in a gated MLP
    vocab_size: int

    def forward_flops(self, sequence_length: int) -> float:
        """FLOPs of one row of L tokens: 2 L per matrix parameter, and 4 L² · layers · width for full attention.

        Scores and weighted values are 2 L² · width each (Kaplan et al. 2020, Table 1; Chowdhery et al. 2022, Appendix
        B, whose factor of 12 is forward and backward). A kernel that skips the future computes half of that, and
        sliding windows less: what is counted is the work that the model asks for, as in a model FLOPs utilisation.
        """
        attention = 4 * self.num_layers * self.attention_size * sequence_length**2
        return float(2 * self.num_matmul_parameters * sequence_length + attention)

    def training_flops(self, sequence_length: int) -> float:
        """FLOPs of one row, forward and backward: the latter is twice the former. Nothing that is computed again."""
        return 3 * self.forward_flops(sequence_length)


def measure(recipe: Recipe, run: RunName, *, vocab_size: int) -> ModelSize:
    """Sizes of one of the recipe's models, built on torch's meta device."""
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
    return size_of(model)


def size_of(model: PreTrainedModel) -> ModelSize:
    """Sizes of a causal LM on any device."""
    config = model.config
    num_heads, hidden_size = config.num_attention_heads, config.hidden_size
    head_size = getattr(config, "head_dim", None) or hidden_size // num_heads
    is_gated = any("gate_proj" in name or "gate_up_proj" in name for name, _ in model.named_parameters())
    return ModelSize(
        num_parameters=model.num_parameters(),
        num_matmul_parameters=_count_multiplied(model),
        num_layers=config.num_hidden_layers,
        hidden_size=hidden_size,
        attention_size=num_heads * head_size,
        mlp_size=_mlp_size(config),
        num_mlp_matrices=3 if is_gated else 2,
        vocab_size=config.vocab_size,
    )


def _count_multiplied(model: PreTrainedModel) -> int:
    """Elements of the matrices that every token meets; of a mixture of experts, those that it is routed to."""
    import torch

    head: Any = model.get_output_embeddings()
    looked_up = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding) and m is not head}
    if head is not None:
        looked_up.discard(id(head.weight))  # tied: looked up first, multiplied with last
    share = _active_share(model.config)
    return sum(
        round(parameter.numel() * share) if ".experts." in name else parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and id(parameter) not in looked_up
    )


def _active_share(config: PretrainedConfig) -> float:
    """The share of the experts that a token is routed to; 1 without experts."""
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    num_experts = next((count for name in names if (count := getattr(config, name, None))), None)
    return getattr(config, "num_experts_per_tok", num_experts) / num_experts if num_experts else 1.0


def _mlp_size(config: PretrainedConfig) -> int:
    names = ("intermediate_size", "n_inner", "ffn_dim")
    return next((size for name in names if (size := getattr(config, name, None))), 4 * config.hidden_size)
