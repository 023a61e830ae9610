"""``doremi recipe [NAME]``: recipes that come with the package, to copy and change."""

from __future__ import annotations

import argparse
from pathlib import Path

from doremi.errors import InputError
from doremi.launch import console

FOLDER = Path(__file__).parents[1] / "recipes"


def add_recipe(verbs: argparse._SubParsersAction) -> None:
    """The verb and its argument."""
    recipe = verbs.add_parser(
        "recipe",
        help="print a recipe to start from: doremi recipe custom > my.yaml",
        description="Prints a recipe that comes with this package, to be copied and changed: `doremi recipe custom > "
        "my.yaml`. Without NAME, lists them.",
    )
    recipe.add_argument("name", metavar="NAME", nargs="?", help="such as custom or pile_120m")
    recipe.set_defaults(action=_show)


def names() -> list[str]:
    """Of all recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def text(name: str) -> str:
    """The recipe of that name, as it is written.

    Raises:
        InputError: there is none; the message lists those that are.
    """
    if name.removesuffix(".yaml") not in names():
        raise InputError(f"no recipe {name!r}; there are {', '.join(names())}")
    return (FOLDER / f"{name.removesuffix('.yaml')}.yaml").read_text(encoding="utf-8")


def _show(options: argparse.Namespace) -> None:
    if options.name is not None:
        print(text(options.name), end="")
        return
    for name in names():
        summary = text(name).split("\n")[0].removeprefix("# ")
        console.show(console.wrapped(f"{name:<16}  {summary}", indent=" " * 18, first=""))
