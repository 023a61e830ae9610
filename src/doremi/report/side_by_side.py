"""Several run directories to one page, and its Markdown twin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from doremi import files
from doremi.errors import InputError
from doremi.evidence.outcomes import Judged
from doremi.evidence.targets import LABELS
from doremi.report import comparisons, directories, numbers, sentences, templating, views
from doremi.report.directories import Directory
from doremi.report.markdown_blocks import paragraph, table
from doremi.report.render import MAX_DOMAINS_IN_FULL
from doremi.text import visible

COMPARISON = "comparison.html"


def write_comparison(run_dirs: Sequence[Path], *, out: Path | None = None) -> Path:
    """Set finished runs side by side, as a page and as Markdown beside it.

    Args:
        run_dirs: at least one.
        out: the page; by default `COMPARISON` in the folder that the first run directory lies in.

    Returns:
        The page's path.

    Raises:
        MissingFileError: a folder or one of its files does not exist.
        InputError: ``out`` is no path of an HTML file, or what `directories.load_directories` refuses.
    """
    path = run_dirs[0].resolve().parent / COMPARISON if out is None else out
    if path.suffix not in (".html", ".htm") or path.is_dir():
        raise InputError(f"--out is {str(path)!r}; it must name an HTML file, such as {COMPARISON}")
    found = directories.load_directories(run_dirs)
    files.write_text(path.with_suffix(".md"), render_markdown(found))
    files.write_text(path, render_page(found))
    return path


def render_page(found: Sequence[Directory]) -> str:
    """The page as text."""
    template = templating.environment().get_template("comparison.html.j2")
    return template.render(
        directories=found,
        labels=[one.label for one in found],
        warnings=directories.warnings(found),
        groups=directories.summary_groups(found),
        summaries_axis=directories.summaries_axis(found),
        domains=directories.domain_rows(found),
        axis=directories.weights_axis(found),
        recipes=directories.recipe_rows(found),
        comparisons=comparisons,
        places=directories,
        pair_of=pair_of,
        summary_labels=list(LABELS.values()),
        sentences=sentences,
        views=views,
        scroll="scroll tall" if len(found[0].results.domains) > MAX_DOMAINS_IN_FULL else "scroll",
        styles=Markup(templating.source("report.css")),
    )


def render_markdown(found: Sequence[Directory]) -> str:
    """The document as text."""
    sections = (_verdicts(found), _summaries(found), _weights(found), _costs(found), _recipes(found))
    return "\n\n".join(block for section in sections for block in section) + "\n"


def _verdicts(found: Sequence[Directory]) -> Iterator[str]:
    yield "# DoReMi: run directories side by side"
    yield from (paragraph("Careful", warning) for warning in directories.warnings(found))
    rows = ([one.label, sentences.outcome(one.results) or "-", one.results.verdict] for one in found)
    yield table(["directory", "verdict", "in words"], rows, num_texts=3)


def _summaries(found: Sequence[Directory]) -> Iterator[str]:
    yield "## Each experiment's arm - its control"
    yield "Nats per token with 95 % intervals; negative is better."
    groups = directories.summary_groups(found)
    rows = (
        [one.label, _basis(one), *(_difference(group.values[index]) for group in groups)]
        for index, one in enumerate(found)
    )
    yield table(["directory", "intervals over", *(group.label for group in groups)], rows, num_texts=2)
    yield "### The losses themselves"
    labels = [f"{label}, {which}" for label in LABELS.values() for which in ("control", "arm")]
    losses = ([one.label, *pair_of(one), *map(numbers.nats, directories.losses(one))] for one in found)
    yield table(["directory", "arm", "control", *labels], losses, num_texts=3)


def _basis(one: Directory) -> str:
    return "-" if one.results.headline is None else comparisons.basis(one.results.headline).value


def _difference(judged: Judged | None) -> str:
    if judged is None:
        return numbers.MISSING
    return f"{numbers.with_interval(judged.value, judged.ends)} {judged.outcome}"


def pair_of(one: Directory) -> tuple[str, str]:
    """The arm that the experiment is for, and its control."""
    return visible(one.results.lead), visible(one.results.control)


def _weights(found: Sequence[Directory]) -> Iterator[str]:
    yield "## Weights side by side"
    heads = [f"{one.label}, {when}" for one in found for when in ("before", "after")]
    rows = (
        [row.name, *(numbers.percent(w) for pair in zip(row.before, row.after, strict=True) for w in pair)]
        for row in directories.domain_rows(found)
    )
    yield table(["domain", *heads], rows)


def _costs(found: Sequence[Directory]) -> Iterator[str]:
    yield "## Speed-up and cost"
    rows = (
        [one.label, sentences.speed_up(one.results), numbers.factor(views.speed_up(one.results)),
         numbers.factor(cost.search_over_main if (cost := directories.search_cost(one)) else None),
         numbers.duration(views.total_seconds(views.cost_rows(one.results)))]
        for one in found
    )  # fmt: skip
    yield table(["directory", "how soon", "speed-up", "search / one model", "time of everything"], rows, num_texts=2)


def _recipes(found: Sequence[Directory]) -> Iterator[str]:
    yield "## What differs in the recipes"
    rows = [[row.key, *row.values] for row in directories.recipe_rows(found)]
    if rows:
        yield table(["key", *(one.label for one in found)], rows, num_texts=1 + len(found))
    else:
        yield "Nothing: the recipes are the same."
