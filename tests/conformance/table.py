"""docs/model-types.md: what each causal model type of transformers does here. Made by ``make model-types``."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import transformers
from transformers.utils import logging as transformers_logging

from tests.conformance import zoo
from tests.conformance.examine import LENGTH, Findings, examine

REFUSED_MOVES = 1e-4  # at least that much is moved by what must not, where a type is refused for it
PAGE = Path(__file__).parents[2] / "docs" / "model-types.md"
HEAD = """\
# Which model types work

transformers {version} has {number} causal model types. Each was made small and taken through what a run does,
with random parameters, two layers (or one of each kind that the type has) and rows of {length} tokens on a CPU: token
losses against the model's own logits, two proxy steps against Eq. 1 worked out with plain PyTorch, in one and in three
micro-batches, saving and loading, rows longer than the configuration says, and the probes that every run begins with.
`make model-types` makes this page, and `make test-slow` holds every line of it.

- **Refused**: a recipe that names the type ends with that message and exit code 2 before anything is prepared.
- **Trained**: as reference, proxy and main model.
- **Separate**: whether `training.documents: separate` is possible. If not, it is refused, and `joined` trains.
- **FLOPs**: what plans and results count for a forward pass, beside PyTorch's own counter, which follows every matrix
  product: right (within 3 %), null where they are not known (plans and results then say so), or counted where PyTorch's
  counter fails.
- Figures say how much a loss moves, as a share of itself, when a token changes that it must not depend on; more than
  1e-5 is refused. Layers that know no boundaries between documents (recurrent ones) show it, and models that ignore
  positions.

{trained} types train, {separate} of them with separate documents; {refused} are refused.

"""
REFUSED = """\
## Refused

| type | why |
|---|---|
"""
TRAINED = """
## Trained

| type | separate | why not | FLOPs |
|---|---|---|---|
"""


def cells(found: Findings) -> list[str]:
    """The type's row, without markup."""
    if found.crash or found.wrong:
        return [found.model_type, "WRONG: " + "; ".join(found.wrong)]
    if found.refusal is not None:
        return [found.model_type, reason(found.refusal) + _with_padding(found)]
    separate, why = ("yes", "") if found.refusal_when_separate is None else ("no", reason(found.refusal_when_separate))
    return [found.model_type, separate, why, found.flops]


def _with_padding(found: Findings) -> str:
    """Of a type that cannot do without a padding token, which a corpus has not: what else is wrong with it."""
    moved = found.figures.get("an earlier loss moved by", 0.0)
    is_shown = "computes no losses" in (found.refusal or "") and moved > REFUSED_MOVES
    return f"; with a padding token, an earlier loss moves by {moved:.2g} of itself" if is_shown else ""


def reason(message: str) -> str:
    """The sentence of a refusal that says why; of a probe's, what moves by how much."""
    text = re.sub(r"\.? (Use|Check|Set|Take|It sees) .*", "", message.replace("|", "\\|"))
    text = re.sub(r"(computes no losses of a row of \d+ tokens: \w+).*", r"\1", text)
    moved = re.search(r"an? [\w ]*loss[\w ]* moves by \S+ of itself", text)
    return moved.group() if moved else text.removeprefix("models: ").removeprefix("training.documents: ")


def row(values: Iterable[str]) -> str:
    """As a line of the page."""
    name, *others = values
    return f"| {' | '.join([f'`{name}`', *others])} |"


def status(line: str) -> list[str]:
    """What of a line must be the same on every machine: the first columns, without the figures in them."""
    return [re.sub(r"\d[\d.e+-]*", "#", cell).strip() for cell in line.split("|")[2:4]]


def committed() -> dict[str, str]:
    """The lines of the page, by type."""
    lines = PAGE.read_text().splitlines() if PAGE.exists() else []
    return {match.group(1): line for line in lines if (match := re.match(r"\| `([\w.-]+)` \|", line))}


def render(lines: dict[str, str]) -> str:
    """The page with the line of each type that was tried."""
    refused, trained = ([line for line in lines.values() if line.count(" |") == number] for number in (2, 4))
    head = HEAD.format(
        version=transformers.__version__,
        number=len(zoo.ALL_TYPES),
        length=LENGTH,
        trained=len(trained),
        separate=sum("| yes |" in line for line in trained),
        refused=len(refused),
    )
    tables = ((REFUSED, refused), (TRAINED, trained))
    return head + "".join(title + "".join(line + "\n" for line in table) for title, table in tables)


def main(model_types: Iterable[str]) -> None:
    """Write the page anew, or only the lines of some types; fails if one of them is wrong."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    wanted, lines, wrong = tuple(model_types) or zoo.ALL_TYPES, committed(), []
    for model_type in wanted:
        with tempfile.TemporaryDirectory() as folder:
            found = examine(model_type, Path(folder))
        lines[model_type] = row(cells(found))
        wrong += [model_type] if found.wrong else []
        print(lines[model_type], flush=True)
    PAGE.write_text(render({name: lines[name] for name in zoo.ALL_TYPES if name in lines}))
    if wrong:
        sys.exit(f"wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main(sys.argv[1:])
