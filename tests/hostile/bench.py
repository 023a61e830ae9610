"""What a case is made of: a folder of its own with small, valid inputs, and ways to spoil them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import yaml

WORDS = "the of and river stone return self def".split()  # noqa: SIM905
DOMAINS = ("code", "prose")
NUL, TOO_LONG = "\0", "x" * 5000

WRONG_JSON = (  # as a file of JSON that should hold a mapping
    b"",
    b"[]",
    b"3",
    b"null",
    b'"x"',
    b"{",
    b"\xff\xfe",
    b"[" * 50000,
    b"9" * 5000,
    b"{}",
)


@dataclass
class Case:
    """A command line, and whether it is truly valid after all."""

    arguments: list[str]
    is_valid: bool = False


@dataclass
class Bench:
    """A folder to spoil things in; the same name gives the same case."""

    folder: Path
    base: Path  # a prepared corpus, a tokenizer, a model, a finished run's results
    rng: Random
    recipe: dict = field(default_factory=dict)

    def __post_init__(self):
        self.recipe = {
            "corpus": {
                "inputs": [{"path": str(self.write_documents("corpus.jsonl")), "domain_field": "domain"}],
                "held_out_fraction": 0.2,
                "tokenizer": {"path": str(self.base / "tokenizer")},
            },
            "models": {run: {"preset": "tiny", "overrides": {"hidden_size": 16, "intermediate_size": 24}}
                       for run in ("reference", "proxy", "main")},
            "training": {"steps": 2, "sequence_length": 16, "global_batch_size": 4, "num_threads": 1},
            "evaluation": {"max_tokens_per_domain": 100},
        }  # fmt: skip

    def pick(self, *choices):
        return self.rng.choice(choices)

    def text(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
        return path

    def documents(self, number=80):
        rng = Random(1)
        return [{"text": " ".join(rng.choices(WORDS, k=30)), "domain": DOMAINS[i % 2]} for i in range(number)]

    def write_documents(self, name):
        return self.text(name, "".join(json.dumps(document) + "\n" for document in self.documents()))

    def write_recipe(self, text=None):
        return str(self.text("recipe.yaml", yaml.safe_dump(self.recipe, sort_keys=False) if text is None else text))

    def copy(self, name):
        target = self.folder / name
        shutil.copytree(self.base / name, target)
        return target

    def run(self, *verb, **settings):
        """``doremi VERB RECIPE --out out``, with settings of the recipe by dotted key."""
        overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return Case([*verb, self.write_recipe(), "--out", "out", *overrides])

    # ---- spoiling ----

    def bad_path(self, suffix=""):
        """A path that names no readable file: each way a file system has to say so."""
        folder = self.folder / f"bad{self.rng.randrange(10**9)}"
        folder.mkdir()
        kind = self.pick("loop", "dangling", "long", "longer", "file in the way", "not UTF-8", "fifo", "folder", "none")
        path = folder / f"{kind.replace(' ', '-')}{suffix}"
        if kind == "loop":
            path.symlink_to(path)
        elif kind == "dangling":
            path.symlink_to(folder / "nowhere")
        elif kind == "long":
            path = folder / (TOO_LONG[:300] + suffix)
        elif kind == "longer":
            path = folder / ("a/" * 3000 + suffix)
        elif kind == "file in the way":
            (folder / "file").touch()
            path = folder / "file" / f"x{suffix}"
        elif kind == "not UTF-8":
            path = Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe" + suffix.encode()))
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        return str(path)

    def cut(self, data, *, least=0):
        """Truncated."""
        return data[: self.rng.randrange(least, max(len(data) - 1, least + 1))]

    def spoil_json(self, content):
        """``content`` with one value replaced by one of another type; returns the path to it and the new value."""
        places = list(_places(content))
        container, key = self.rng.choice(places)
        old = container[key]
        container[key] = self.rng.choice([v for v in WRONG_TYPES if type(v) is not type(old)])
        return key, container[key]


WRONG_TYPES = (None, True, -1, 1.5, 10**30, "nonsense", [], [[]], {}, {"a": {}}, [None], "\x1b[2Jx")


def _places(node):
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield node, key
        yield from _places(value)
