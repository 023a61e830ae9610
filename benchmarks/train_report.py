"""From the parts' samples to figures: medians, quartiles, throughput. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.train_sizes import Sizes

PEAK_FLOPS = 989e12  # of one H100 SXM or H200: dense bfloat16, as NVIDIA gives it
TARGETS = {  # at most
    "proxy_over_plain": 1.45,
    "proxy_over_plain_cached": 1.10,
    "trainer_over_bare": 1.10,
    "token_loss_memory_ratio": 0.40,
    "bookkeeping_fraction": 0.01,
}
GPU_TARGETS = {**TARGETS, "proxy_over_plain": 1.22}  # what upstream reports: 44 h against 36 h
Result = dict[str, Any]
Pairs = Sequence[tuple[float, float]]


def summarise(parts: dict[str, Result], sizes: Sizes) -> Result:
    """Every figure as a number, the quartiles of each beside, and what they were taken with."""
    environment = parts["whole_batch"]["environment"]
    steps = parts["whole_batch"]["seconds"] | parts["micro_batches"]["seconds"]
    plain_seconds = [plain for _, plain in steps["proxy_over_plain"]]
    seconds_per_token = statistics.median(plain_seconds) / sizes.tokens_per_step
    samples = {
        **{name: [first / second for first, second in pairs] for name, pairs in steps.items()},
        "token_loss_time_ratio": [ours / full for ours, full in parts["losses"]["seconds"]],
        **{
            f"bookkeeping_fraction_{k}": bookkeeping_fractions(parts["bookkeeping"][str(k)], seconds_per_token)
            for k in sizes.bookkeeping_domains
        },
        "tokens_per_second": [sizes.tokens_per_step / seconds for seconds in plain_seconds],
    }
    if environment["is_gpu"]:
        samples |= mfu(steps["proxy_over_plain"], sizes)
    figures = {name: statistics.median(values) for name, values in samples.items()}
    peaks = {path: parts[f"memory_{path}"]["bytes"] for path in ("ours", "full")}
    return {
        **figures,
        "bookkeeping_fraction": max(figures[f"bookkeeping_fraction_{k}"] for k in sizes.bookkeeping_domains),
        "bookkeeping_seconds": {
            k: statistics.median(dro - plain for dro, plain in result["seconds"])
            for k, result in parts["bookkeeping"].items()
            if k != "environment"
        },
        "token_loss_memory_ratio": peaks["ours"] / peaks["full"],
        "token_loss_peak_bytes": peaks,
        "token_loss_max_difference_nats": parts["losses"]["max_difference_nats"],
        "quartiles": {name: quartiles(values) for name, values in samples.items()},
        "step_seconds": {
            name: [statistics.median(column) for column in zip(*pairs, strict=True)] for name, pairs in steps.items()
        },
        "num_pairs": {"steps": sizes.rounds, "losses": sizes.loss_rounds},
        "clock": parts["whole_batch"]["clock"],
        "environment": environment,
        "sizes": dataclasses.asdict(sizes),
        "parameters_in_matrix_products": sizes.matmul_parameters,
    }


def bookkeeping_fractions(result: Result, seconds_per_token: float) -> list[float]:
    """What a proxy step without models takes beyond a plain one, over a plain step of as many tokens with its model."""
    step_seconds = result["tokens_per_step"] * seconds_per_token
    return [(dro - plain) / step_seconds for dro, plain in result["seconds"]]


def mfu(pairs: Pairs, sizes: Sizes) -> dict[str, list[float]]:
    """Model FLOPs over what the device could do: of plain steps, and of proxy steps with a third for the reference."""
    flops = sizes.tokens_per_step * sizes.training_flops_per_token
    return {
        "mfu_proxy": [flops * 4 / 3 / proxy / PEAK_FLOPS for proxy, _ in pairs],
        "mfu_plain": [flops / plain / PEAK_FLOPS for _, plain in pairs],
    }


def quartiles(values: Sequence[float]) -> list[float]:
    """The first and the third."""
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, third]


def table(report: Result) -> str:
    """The figures for a terminal."""
    targets = GPU_TARGETS if report["environment"]["is_gpu"] else TARGETS
    names = [name for name, value in report.items() if isinstance(value, int | float)]
    lines = [f"{'':34}{'median':>12}{'quartiles':>26}{'at most':>10}"]
    for name in names:
        spread = " to ".join(f"{value:,.4g}" for value in report["quartiles"].get(name, []))
        lines.append(f"{name:34}{report[name]:>12,.4g}{spread:>26}{targets.get(name, ''):>10}")
    return "\n".join(lines)
