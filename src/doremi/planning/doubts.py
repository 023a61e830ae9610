"""What a plan warns of, before anything was paid for. Each doubt is a sentence with its figures, rule and remedy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from doremi.config import RunName
from doremi.experiment.recipe import Recipe
from doremi.planning.disk import Disk
from doremi.planning.memory import Memory
from doremi.planning.stages import Stage
from doremi.text import visible

# Hoffmann et al. 2022 (Chinchilla), Section 3: about 20 tokens for each parameter are the best use of a budget. With
# far fewer, the proxy's losses tell how fast a domain is learnt and not how well it can be.
MIN_TOKENS_PER_PARAMETER = 20
# Xie et al. 2023, Section 4 and Table 9: the smallest proxy that the paper tried, 68M parameters on 105G tokens, and
# the largest step to a main model, from there to 9.6G. Beyond these nothing is known.
MAX_TOKENS_PER_PARAMETER = 1550
MAX_SIZE_RATIO = 142
MAX_NAMED = 5
MEMORY_IN_USE = 0.9  # of a device: fragmentation and communication take the rest


def repetition(recipe: Recipe, stages: Sequence[Stage]) -> Iterator[str]:
    """Small domains repeated beyond ``max_epochs``; up to 4 are nearly as good as new text (Muennighoff et al.)."""
    for stage in stages:
        config = recipe.training.for_run(stage.model)
        often = {n: e for n, e in (stage.epochs or {}).items() if e > config.max_epochs * (1 + 1e-9)}
        if not often or stage.num_models == 0:
            continue
        worst = sorted(often, key=lambda name: -often[name])
        named = ", ".join(f"{visible(name)} {often[name]:.1f}" for name in worst[:MAX_NAMED])
        more = f" and {len(worst) - MAX_NAMED} more" if len(worst) > MAX_NAMED else ""
        stops = "; the run will stop there (on_max_epochs: error)" if config.on_max_epochs == "error" else ""
        yield (
            f"{stage.name}: beyond {config.max_epochs:g} epochs of {named}{more}{stops}. Lower their weight, add text, "
            "train for fewer steps, or set training.on_max_epochs: renormalise"
        )


def batch(recipe: Recipe, stages: Sequence[Stage], num_domains: int) -> Iterator[str]:
    """A batch in which domains are missing that a policy wants to see."""
    for stage in stages:
        config, policy = recipe.training.for_run(stage.model), stage.run.policy
        if policy is None or config.global_batch_size >= num_domains:
            continue
        if getattr(policy, "allow_absent_domains", True) or config.sampling == "iid":
            consequence = "most domains will be absent from a batch, and the weights will be noisy"
        else:
            consequence = f"the {stage.name} will be refused"
        yield (
            f"{visible(stage.name)}: a batch of {config.global_batch_size} rows for {num_domains} domains; "
            f"{visible(consequence)}. Raise training.global_batch_size to {num_domains}, better to twice as much"
        )


def proxy_size(recipe: Recipe, stages: Sequence[Stage]) -> Iterator[str]:
    """A proxy too short or too small for its tokens, too small for the main model, or with too few updates."""
    proxy = next((stage for stage in stages if stage.model == "proxy" and stage.part == "search"), None)
    if proxy is None:
        return
    verified = next(stage for stage in stages if stage.part == "verification")
    ratio = proxy.num_tokens / proxy.size.num_parameters
    if ratio < MIN_TOKENS_PER_PARAMETER:
        steps = recipe.training.for_run("proxy").steps * MIN_TOKENS_PER_PARAMETER / ratio
        yield (
            f"proxy: {ratio:.1f} tokens a parameter, below {MIN_TOKENS_PER_PARAMETER} (Hoffmann et al. 2022): it is "
            f"too short to show how well a domain can be learnt. Train it for {steps:,.0f} steps, or take a smaller one"
        )
    if ratio > MAX_TOKENS_PER_PARAMETER:
        yield (
            f"proxy: {ratio:,.0f} tokens a parameter; the smallest proxy of the paper had {MAX_TOKENS_PER_PARAMETER:,}"
            "; nothing is known beyond. Take a larger one, or fewer steps"
        )
    if (times := verified.size.num_parameters / proxy.size.num_parameters) > MAX_SIZE_RATIO:
        yield (
            f"proxy: the main model has {times:.0f} times as many parameters; the paper went up to {MAX_SIZE_RATIO} "
            "times. Take a larger proxy"
        )
    yield from _updates(recipe)


def _updates(recipe: Recipe) -> Iterator[str]:
    """The adversary forgets where it started with a factor of 1 − c a step (Algorithm 1), so in about 1 / c steps."""
    steps = recipe.training.for_run("proxy").steps
    for smoothing in dict.fromkeys(method.smoothing for method in recipe.doremi_methods()):
        if smoothing > 0 and steps < 1 / smoothing:
            yield (
                f"proxy: {steps:,} updates of the weights; with smoothing {smoothing:g} the uniform start is forgotten "
                f"after about {1 / smoothing:,.0f}, and the average still shows it. Train the proxy for more steps"
            )


def memory(memories: Mapping[RunName, Memory], *, device_gb: float, device: str) -> Iterator[str]:
    """A model that does not fit into the named device."""
    for model, needed in memories.items():
        if needed.known > MEMORY_IN_USE * device_gb * 1e9:
            how_much = "about" if needed.total is not None else "more than"
            yield (
                f"{model}: needs {how_much} {needed.known / 1e9:.0f} GB on each device, a {device} has {device_gb:g}. "
                f"Lower training.overrides.{model}.micro_batch_size, or set arguments there: gradient_checkpointing, "
                "or fsdp over more devices"
            )


def disk(needed: Disk, out: Path) -> Iterator[str]:
    """A run directory that the disk has no room for, beside what is there already."""
    existing = next(folder for folder in [out.absolute(), *out.absolute().parents] if folder.is_dir())
    present = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) if out.is_dir() else 0
    free = shutil.disk_usage(existing).free
    if needed.total - present > free:
        yield (
            f"disk: {out} will take {needed.total / 1e9:,.0f} GB, {free / 1e9:,.0f} GB are free. Lower "
            "training.save_total_limit, or use another --out"
        )
