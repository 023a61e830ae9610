"""`results.json` and `search.json` as files: written whole, and checked before any of it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from doremi import files, redaction
from doremi.errors import InputError, MissingFileError
from doremi.evidence.answers import FORMAT, Answers
from doremi.evidence.schema import Results

NAME, SEARCH = "results.json", "search.json"
NUM_SHOWN_PROBLEMS = 3
VERBS = {NAME: "evaluate", SEARCH: "search"}  # what writes it

Shown = TypeVar("Shown", bound=Answers)


def write(path: Path, results: Answers) -> None:
    """Write the file, whole or not at all."""
    files.write_json(path, results.model_dump())


def load(run_dir: Path) -> Results:
    """Read and check ``run_dir/results.json``.

    Raises:
        MissingFileError: there is no such folder or file.
        InputError: it is not JSON, or does not follow the schema; the message lists the first few problems.
    """
    if not run_dir.is_dir():
        raise MissingFileError(f"{run_dir}: no such run directory; `doremi run RECIPE` makes one")
    path = run_dir / NAME
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; `doremi evaluate RECIPE` writes it once the runs are trained")
    return _load(path, Results)


def load_latest(run_dir: Path) -> Answers:
    """What is known in a run directory: its results, or the answers of a search that is not verified yet.

    Raises:
        MissingFileError: there is no such folder, or neither of the files.
        InputError: see `load`.
    """
    if (run_dir / SEARCH).is_file() and not (run_dir / NAME).exists():
        return _load(run_dir / SEARCH, Answers)
    return load(run_dir)


def _load(path: Path, schema: type[Shown]) -> Shown:
    results = _parse(files.read_json(path), schema, source=str(path), verb=VERBS[path.name])
    if command := results.provenance.get("command"):
        results.provenance["command"] = redaction.published(str(command))
    return results


def read_public(path: Path) -> str:
    """The text of a file of a run directory as others may see it: without secrets, paths shortened.

    Older versions wrote both.

    Raises:
        MissingFileError: there is none.
        InputError: it is not UTF-8.
    """
    try:
        return redaction.published(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file; the folder is not a finished run directory") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None


def parse(content: Mapping[str, Any], *, source: str = "results") -> Results:
    """Check ``content``, the parsed JSON, against the schema.

    Raises:
        InputError: it is of an older format, or does not follow the schema; the message lists the first few problems.
    """
    return _parse(content, Results, source=source, verb=VERBS[NAME])


def _parse(content: Any, schema: type[Shown], *, source: str, verb: str) -> Shown:
    remedy = f"run `doremi {verb} RECIPE` to write it anew"
    if isinstance(content, Mapping) and content.get("format") == 1:
        raise InputError(f"{source}: of format 1, from an older version; this one reads format {FORMAT}; {remedy}")
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{source}: {_explain(error)}. Delete the file and {remedy}") from None


def _explain(error: ValidationError) -> str:
    problems = [
        f"{'.'.join(map(ascii, problem['loc'])) or 'the file'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = f" (and {len(problems) - NUM_SHOWN_PROBLEMS} more)" if len(problems) > NUM_SHOWN_PROBLEMS else ""
    return f"not the results of an experiment: {'; '.join(problems[:NUM_SHOWN_PROBLEMS])}{more}"
