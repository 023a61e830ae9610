"""Who may import whom: the floors of the house, in CONTRIBUTING.md. An import against the order fails here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "doremi"
FLOORS = [  # a package imports those below it, and of its own floor nothing but itself
    ["errors", "text", "redaction", "config"],
    ["files", "launch"],
    ["weights", "corpus", "evidence"],
    ["methods", "mixture", "models", "exporters", "report"],
    ["training", "evaluation"],
    ["experiment"],
    ["planning", "slurm"],
    ["cli", "__main__"],
]
BESIDE = {("redaction", "errors"), ("config", "errors"), ("evidence", "weights")}  # on the same floor, in this order
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
WITHOUT = {  # what must not be imported at all, not even within a function
    "methods": {"torch", "logging", "transformers", "doremi.files"},
    "evidence": {"torch", "transformers"},
    "corpus": {"torch"},
}
NO_PYDANTIC = ("training/trainer.py", "training/signals.py", "methods/protocol.py", "methods/group_dro.py")
MAX_ROOT_MODULES = 8


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of everything that a file imports, at any depth."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def package_of(path: Path, source: Path) -> str:
    return path.relative_to(source).parts[0].removesuffix(".py")


def against_the_order(source: Path) -> list[str]:
    """A line for each import that goes up, or sideways."""
    found = []
    for path in sorted(source.rglob("*.py")):
        package = package_of(path, source)
        for line, name in imported(path):
            parts = name.split(".")
            other = parts[1] if parts[0] == "doremi" and len(parts) > 1 else None
            if package == "__init__" or other in (None, package, "__version__", "DomainWeights"):
                continue
            goes_down = FLOOR_OF[other] < FLOOR_OF[package] or (package, other) in {*BESIDE, ("__main__", "cli")}
            if not goes_down:
                found.append(f"{path.relative_to(source)}:{line}: {name}")
    return found


def modules() -> dict[str, Path]:
    names = {path: ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def test_imports_go_down():
    assert against_the_order(SOURCE) == []


def test_an_import_against_the_order_is_seen(tmp_path):
    for name, text in {"corpus/x.py": "from doremi.training import y", "methods/z.py": "import doremi.models"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"def f():\n    {text}\n")
    assert against_the_order(tmp_path) == ["corpus/x.py:2: doremi.training.y", "methods/z.py:2: doremi.models"]


def test_there_is_no_circle():
    """Between modules, lazy imports and those for types included."""
    known = {name: path for name, path in modules().items() if name != "doremi"}  # which imports nothing by itself
    graph = {
        name: {full if full in known else full.rpartition(".")[0] for _, full in imported(path)} & known.keys() - {name}
        for name, path in known.items()
    }
    while leaves := {name for name, others in graph.items() if not others & graph.keys()}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    while roots := graph.keys() - {other for others in graph.values() for other in others}:
        graph = {name: others & (graph.keys() - roots) for name, others in graph.items() if name not in roots}
    assert {name: sorted(others & graph.keys()) for name, others in graph.items()} == {}


@pytest.mark.parametrize("package", WITHOUT)
def test_what_a_package_does_without(package):
    for path in (SOURCE / package).rglob("*.py"):
        for line, name in imported(path):
            roots = {name, name.split(".")[0], ".".join(name.split(".")[:2])}
            assert not roots & WITHOUT[package], f"{path}:{line}: {name}"


@pytest.mark.parametrize("path", NO_PYDANTIC)
def test_what_runs_where_pydantic_is_not_installed(path):
    assert not any(name.split(".")[0] == "pydantic" for _, name in imported(SOURCE / path))


def test_the_root_is_small():
    assert len(list(SOURCE.glob("*.py"))) <= MAX_ROOT_MODULES
    assert {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()} <= FLOOR_OF.keys()
