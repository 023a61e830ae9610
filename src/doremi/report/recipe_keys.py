"""The resolved recipe of a run directory as keys and values, read leniently: a report shows it and obeys nothing."""

from __future__ import annotations

from typing import Any

from doremi.errors import InputError
from doremi.files import yaml_files


def flatten(recipe: str) -> dict[str, str]:
    """Dotted keys to values as text; empty where the text is no YAML mapping."""
    content = _read(recipe)
    return dict(_flat(content, "")) if isinstance(content, dict) else {}


def number(recipe: str, section: str, key: str) -> float | None:
    """One positive number of the recipe; None where there is none."""
    content = _read(recipe)
    found = content.get(section) if isinstance(content, dict) else None
    value = found.get(key) if isinstance(found, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value > 0 else None


def _read(recipe: str) -> Any:
    try:
        return yaml_files.load(recipe, source="recipe.yaml")
    except InputError:
        return None


def _flat(content: dict[Any, Any], prefix: str) -> list[tuple[str, str]]:
    found = []
    for key, value in content.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", str(value)))
    return found
