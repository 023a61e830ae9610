"""Folders of trained models in a run directory, by their labels: digests in their names differ from test to test."""

from __future__ import annotations

from pathlib import Path

from doremi.experiment.ledger import slug
from doremi.experiment.run_directory import NUM_CHARACTERS


def folder(out: Path, label: str) -> Path:
    """The folder of the only run of that label.

    Raises:
        FileNotFoundError: there is none, or there are several.
    """
    found = folders(out, label)
    if len(found) != 1:
        raise FileNotFoundError(f"{len(found)} folders of {label!r} in {out / 'runs'}: {sorted(names(out))}")
    return found[0]


def folders(out: Path, label: str) -> list[Path]:
    """All of them, also none."""
    return sorted((out / "runs").glob(f"{_escaped(slug(label))}-{'?' * NUM_CHARACTERS}"))


def names(out: Path) -> set[str]:
    """What was trained there, as `slug` writes it."""
    return {path.name[: -NUM_CHARACTERS - 1] for path in (out / "runs").glob("*")}


def _escaped(name: str) -> str:
    return "".join(f"[{char}]" if char in "[]*?" else char for char in name)
