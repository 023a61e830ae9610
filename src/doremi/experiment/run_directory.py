"""A run directory: where everything of one recipe lies, and the check that it belongs to that recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from doremi import config, files, launch, redaction
from doremi.errors import InputError
from doremi.experiment.recipe import Recipe, parse
from doremi.files import yaml_files
from doremi.weights import specs

# may change between calls: finished stages stay valid
FREE_KEYS = (
    "methods",
    "target",
    "verify",
    "models.main",
    "training.overrides.main",
    "evaluation.max_tokens_per_domain",
    "evaluation.tasks",
    "evaluation.num_fewshot",
    "evaluation.task_limit",
    "evaluation.task_checkpoints",
    "training.num_threads",
    "training.reading",
    "corpus.num_workers",
    "corpus.tokenizer.backend",
    "cluster",
)

OF_THE_ROOT = ("recipe.yaml", specs.WEIGHTS, "search.json", "results.json", "report.html", "report.md")
NUM_CHARACTERS = 12  # of a digest, in the name of a folder
_DIGEST = "[0-9a-f]" * NUM_CHARACTERS
OWN_FOLDERS = (f"runs/*-{_DIGEST}", f"reference_losses/{_DIGEST}", "answers")


@dataclass(frozen=True)
class RunDirectory:
    """Paths below ``root``; the layout that other tools may rely on."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.root / "recipe.yaml"

    @property
    def corpus(self) -> Path:
        """The token store."""
        return self.root / "corpus"

    @property
    def weights(self) -> Path:
        """DoReMi's domain weights: the answer."""
        return self.root / specs.WEIGHTS

    @property
    def results(self) -> Path:
        """Every number of the comparison."""
        return self.root / "results.json"

    @property
    def search(self) -> Path:
        """What the methods answered and how, of a search that may not be verified yet."""
        return self.root / "search.json"

    @property
    def report(self) -> Path:
        """The page that a person looks at."""
        return self.root / "report.html"

    @property
    def runs(self) -> Path:
        """Trained models, ``LABEL-DIGEST`` each: see `doremi.experiment.ledger`."""
        return self.root / "runs"

    @property
    def reference_losses(self) -> Path:
        """Stored losses of references, a folder for each."""
        return self.root / "reference_losses"

    def answer(self, label: str) -> Path:
        """The answer of one method."""
        return self.root / "answers" / f"{_component(label)}.json"

    def _has_results(self) -> bool:
        """A corpus in progress is not counted: whether it may go on is for its own folder to say."""
        finished = (self.corpus / "manifest.json", self.runs, self.weights)
        return any(path.exists() for path in finished)

    def claim(self, recipe: Recipe) -> None:
        """Write the resolved recipe, or check that the one already there asks for the same run.

        While no stage is finished or under way here, any recipe may take the directory: the first attempt often has a
        mistake in it.

        Raises:
            InputError: the directory belongs to another recipe; names the keys that differ.
        """
        if self.recipe.exists() and self._has_results():
            differing = _differing_keys(_load(self.recipe), _content(recipe))
            if blocking := [key for key in differing if not _is_free(key)]:
                raise InputError(
                    f"{self.root} belongs to another recipe: {', '.join(blocking[:5])} differ"
                    f"{'s' if len(blocking) == 1 else ''}{' (and more)' if len(blocking) > 5 else ''}. "
                    "Use another --out, or delete the directory to start afresh"
                )
        text = recipe.to_yaml()
        if not self.recipe.exists() or self.recipe.read_bytes() != text.encode():
            files.write_text(self.recipe, text)

    def _remove_partial(self) -> None:
        """Remove what killed runs left half-written, from the places that are ours: ``root`` may hold others' files.

        Their locks as well: who trains holds the root too, so that nobody does.
        """
        from doremi.corpus.storing import lock

        files.remove_partial_of(self.root, OF_THE_ROOT)
        if self.recipe.is_file():
            for pattern in OWN_FOLDERS:
                for folder in self.root.glob(pattern):
                    files.remove_partial(folder)
                    (folder / lock.NAME).unlink(missing_ok=True)

    @contextmanager
    def held(self, *, alone: bool = True) -> Iterator[None]:
        """Keep other runs out from the first write to the last, and remove what a killed one left half-written.

        Of several processes that were started together the first one alone holds the directory, for all of them; of
        the corpus' folder, which has a lock of its own, nothing is removed.

        Args:
            alone: whether nobody else may write. Else others may who say so too, each to folders that they hold.

        Raises:
            InputError: another run holds the directory; the message says which process on which host, since when.
        """
        from doremi.corpus.storing import lock

        if not launch.is_first():
            yield
        elif not alone:
            with lock.joined(self.root, activity="in use"):
                yield
        else:
            with lock.locked(self.root, activity="in use") as held:
                if held.is_kept:
                    self._remove_partial()
                yield


def _component(label: str) -> str:
    """A label as one component of a path: its own characters as far as every file system takes them."""
    name = quote(label, safe=" ()")
    return name if name.strip(".") else name.replace(".", "%2E")  # which would be another folder


def sequence_length(folder: Path) -> int | None:
    """Tokens in a row of the main model, where ``folder`` is a run directory or the corpus in one; else None.

    Raises:
        InputError: the recipe in the run directory cannot be read.
    """
    root = folder.parent if folder == RunDirectory(folder.parent).corpus else folder
    path = RunDirectory(root).recipe
    if not path.is_file():
        return None
    return parse(_load(path), source=str(path)).training.for_run("main").sequence_length


def _is_free(key: str) -> bool:
    """Whether a dotted key is one of `FREE_KEYS`, or lies below one."""
    return any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)


def _load(path: Path) -> dict[str, Any]:
    """The recipe of the directory; what an older version did not know yet has its default."""
    try:
        content = config.expand_home(yaml_files.read(path))
    except InputError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a recipe; is this directory a run directory of doremi?")
    with suppress(InputError):
        return _content(parse(content))
    return redaction.identity(content)


def _content(recipe: Recipe) -> dict[str, Any]:
    """As JSON without secrets; the final evaluation's cap stands in for that during training where there is none."""
    content = redaction.identity(recipe.model_dump(mode="json"))
    content["evaluation"]["max_tokens_during_training"] = recipe.evaluation.during_training().max_tokens_per_domain
    return content


def _differing_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted keys whose values differ, in the order of the new recipe."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [prefix]
    keys = [*new, *(key for key in old if key not in new)]
    missing = object()
    return [
        differing
        for key in keys
        for differing in _differing_keys(
            old.get(key, missing), new.get(key, missing), f"{prefix}.{key}" if prefix else key
        )
    ]
