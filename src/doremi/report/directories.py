"""Several run directories to what is shown of them side by side, and whether that means anything. No HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from doremi.errors import InputError
from doremi.evidence.outcomes import Judged
from doremi.evidence.results_file import load, read_public
from doremi.evidence.schema import Arm, Results
from doremi.evidence.speed_up import Cost
from doremi.evidence.targets import LABELS
from doremi.report import comparisons, recipe_keys, trust
from doremi.report.axes import LinearAxis, SignedAxis
from doremi.text import visible

MAX_NAMED = 5
MAX_VALUE_LENGTH = 120  # of a recipe's value


@dataclass(frozen=True)
class Directory:
    """One run directory; ``label`` tells it from the others."""

    label: str
    results: Results
    recipe: str

    @property
    def lead(self) -> Arm:
        """The arm that the experiment is for."""
        return self.results.arms[self.results.lead]

    @property
    def weights(self) -> dict[str, float | None]:
        """The weights of the lead by domain; empty for a policy."""
        return self.lead.weights or {}


@dataclass(frozen=True)
class DomainRow:
    """One domain: its weight before and after in every directory, and where the latter stands between 0 and 1."""

    name: str
    before: tuple[float | None, ...]
    after: tuple[float | None, ...]
    positions: tuple[float, ...]


@dataclass(frozen=True)
class SummaryGroup:
    """One summary: lead - control in every directory; None where it was not compared."""

    label: str
    values: tuple[Judged | None, ...]


@dataclass(frozen=True)
class RecipeRow:
    """One key of the recipes whose values differ; the empty text where a recipe lacks it."""

    key: str
    values: tuple[str, ...]


def load_directories(paths: Sequence[Path]) -> list[Directory]:
    """Read what finished runs left behind.

    Raises:
        MissingFileError: a folder or one of its files does not exist.
        InputError: a file does not follow its schema, a directory is named twice, or their domains differ.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("a run directory is named twice; name each one once")
    labels = _labels(paths)
    found = [
        Directory(label, load(path), read_public(path / "recipe.yaml"))
        for label, path in zip(labels, paths, strict=True)
    ]
    _check_domains(found)
    return found


def _labels(paths: Sequence[Path]) -> list[str]:
    """The folders' names; their whole paths where two are called the same."""
    names = [path.resolve().name for path in paths]
    return [visible(n if len(set(names)) == len(names) else str(p)) for n, p in zip(names, paths, strict=True)]


def _check_domains(found: Sequence[Directory]) -> None:
    first, *others = found
    for other in others:
        only_first = [name for name in first.results.domains if name not in other.results.domains]
        only_other = [name for name in other.results.domains if name not in first.results.domains]
        if only_first or only_other:
            raise InputError(
                f"{first.label} and {other.label} have other domains ({_named(first.label, only_first)}; "
                f"{_named(other.label, only_other)}): weights and means over them cannot be set side by side. "
                "Compare runs of one corpus, or report them one by one"
            )


def _named(label: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"only in {label}: {', '.join(map(ascii, names[:MAX_NAMED])) or 'none'}{more}"


def warnings(found: Sequence[Directory]) -> list[str]:
    """What makes numbers of these directories comparable only in part."""
    said = []
    if _differ([d.results.provenance.get("corpus_digest") for d in found]):
        said.append(
            "The corpora differ (corpus_digest): a difference between two directories may come from the text itself, "
            "held-out text included."
        )
    if _differ([d.results.provenance.get("tokenizer_digest") for d in found]):
        said.append(
            "The tokenizers differ (tokenizer_digest): nats per token of different tokenizers cannot be compared, the "
            "signs of differences within a directory can."
        )
    if _differ([(d.lead.num_parameters, d.lead.num_tokens) for d in found]):
        said.append(
            "The models differ in size or in the tokens that they were trained on: compare differences, not losses."
        )
    if _differ([{name: d.prior for name, d in one.results.domains.items()} for one in found]):
        said.append(
            "The reference weights differ, and with them the baselines and what the reference-weighted mean weighs by."
        )
    if _differ([d.results.target for d in found]):
        said.append("The targets differ: speed-ups and verdicts are not about the same number.")
    return said


def _differ(values: Sequence[object]) -> bool:
    known = [value for value in values if value is not None]
    return any(value != known[0] for value in known)


def domain_rows(found: Sequence[Directory]) -> list[DomainRow]:
    """One row a domain, largest weight in any directory first."""
    axis = weights_axis(found)
    rows = [_domain_row(found, name, axis) for name in found[0].results.domains]
    return sorted(rows, key=lambda row: -max(row.positions))


def _domain_row(found: Sequence[Directory], name: str, axis: LinearAxis) -> DomainRow:
    after = tuple(d.weights.get(name) for d in found)
    return DomainRow(
        name=visible(name),
        before=tuple(d.results.domains[name].prior for d in found),
        after=after,
        positions=tuple(axis.position(weight) for weight in after),
    )


def weights_axis(found: Sequence[Directory]) -> LinearAxis:
    """An axis for the weights of all directories' leads."""
    return LinearAxis.covering(weight or 0.0 for one in found for weight in one.weights.values())


def summary_groups(found: Sequence[Directory]) -> list[SummaryGroup]:
    """The three summaries, with the interval that each directory has evidence for."""
    headlines = [d.results.headline for d in found]
    shown = [None if h is None else comparisons.differences(h).summaries for h in headlines]
    return [
        SummaryGroup(label, tuple(None if by_key is None else by_key[key] for by_key in shown))
        for key, label in LABELS.items()
    ]


def losses(one: Directory) -> list[float | None]:
    """Each of the three summaries of the control, then of the lead."""
    arms = [one.results.arms[name] for name in (one.results.control, one.results.lead)]
    return [arm.summary(key) for key in LABELS for arm in arms]


def search_cost(one: Directory) -> Cost | None:
    """FLOPs of finding the lead's weights."""
    search = trust.lead_search(one.results)
    return search.cost if search else None


def summaries_axis(found: Sequence[Directory]) -> SignedAxis:
    """An axis for all of `summary_groups`."""
    values = [judged for group in summary_groups(found) for judged in group.values if judged is not None]
    return comparisons.axis_of(values)


def recipe_rows(found: Sequence[Directory]) -> list[RecipeRow]:
    """What the recipes do not share, in the order of their keys."""
    recipes = [recipe_keys.flatten(d.recipe) for d in found]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    rows = [RecipeRow(visible(key), tuple(_shown(recipe.get(key, "")) for recipe in recipes)) for key in keys]
    return [row for row in rows if len(set(row.values)) > 1]


def _shown(value: str) -> str:
    short = visible(value)
    return short if len(short) <= MAX_VALUE_LENGTH else f"{short[: MAX_VALUE_LENGTH - 1]}…"
