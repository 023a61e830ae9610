"""Tables that several verbs print."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from doremi.launch.console import bar_width, width, wrapped
from doremi.text import visible

if TYPE_CHECKING:
    from doremi.mixture.inspect import MixtureForecast


def weights_table(weights: Mapping[str, float], *, spread: Mapping[str, float] | None = None) -> str:
    """One line a domain, largest first, with its spread where that is known, and a bar."""
    width = max(len(visible(name)) for name in weights)
    largest = max(weights.values())
    columns = bar_width(beside=width + (21 if spread else 12))
    return "\n".join(
        f"{visible(name):<{width}}  {weight:8.4f}{_plus_minus(spread, name)}  "
        f"{'#' * round(columns * weight / largest)}".rstrip()
        for name, weight in sorted(weights.items(), key=lambda item: -item[1])
    )


def _plus_minus(spread: Mapping[str, float] | None, name: str) -> str:
    return f" ± {spread.get(name, 0.0):.4f}" if spread else ""


def forecast_table(forecast: MixtureForecast) -> str:
    """What the loader will draw, one line a domain, with the domains that are repeated too often below."""
    width = max(6, *(len(visible(domain.name)) for domain in forecast.domains))
    lines = [
        f"{forecast.num_rows:,} rows in {forecast.num_steps:,} steps",
        f"{'domain':<{width}}  {'weight':>8}  {'asked':>13}  {'drawn':>11}  {'available':>11}  {'epochs':>8}",
    ]
    for domain in forecast.domains:
        lines.append(
            f"{visible(domain.name):<{width}}  {domain.weight:8.4f}  {domain.expected_rows:13,.1f}  "
            f"{domain.drawn_rows:11,}  {domain.available_rows:11,}  {domain.epochs:8.2f}"
        )
    rows = ", ".join(f"{visible(name)} {row}" for name, row in forecast.first_rows)
    lines.append(wrapped(f"first rows: {rows}", indent="  ", first=""))
    if forecast.repeated:
        names = ", ".join(map(visible, forecast.repeated))
        advice = (
            f"beyond {forecast.max_epochs:g} epochs: {names}. Repeated text is worth less than new text: lower the "
            "weight, add data, train for fewer steps, or set training.on_max_epochs: renormalise"
        )
        lines.append(wrapped(advice))
    return "\n".join(lines)


def recipe_help() -> str:
    """Every key of a recipe with its default and description."""
    from doremi.experiment.recipe import describe_fields

    lines = ["Keys of a recipe (YAML), with their defaults; [] marks an item of a list.", ""]
    for key, default, description in describe_fields():
        lines.append(key + (f" = {default}" if default not in ("", "required") else f" ({default})" if default else ""))
        lines.append(
            textwrap.fill(description, width=min(width() or 96, 96), initial_indent="    ", subsequent_indent="    ")
        )
    return "\n".join(lines)
