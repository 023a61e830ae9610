"""A run directory to one self-contained HTML page and its Markdown twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from doremi import files
from doremi.evidence.answers import Answers
from doremi.evidence.results_file import load_latest, read_public
from doremi.evidence.schema import Results
from doremi.report import axes, comparisons, recipe_keys, sentences, tasks, templating, trust, views
from doremi.report.markdown import render_markdown, render_search
from doremi.report.series import chart_data, num_averaged, stride
from doremi.text import content_security_source, script_json, visible

REPORT = "report.html"
MAX_DOMAINS_IN_FULL = 30  # longer tables scroll inside the page


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` and its twin ``report.md`` from the files beside them; returns the page's path.

    Reads ``results.json``, or ``search.json`` where nothing is verified yet; ``recipe.yaml`` and ``weights.json``.

    Raises:
        MissingFileError: the folder or one of the files does not exist.
        InputError: one of them is not what it should be.
    """
    results, recipe = load_latest(run_dir), read_public(run_dir / "recipe.yaml")
    weights = read_public(run_dir / "weights.json")
    if isinstance(results, Results):
        page = render_page(results, recipe=recipe, weights=weights)
        twin = render_markdown(results, recipe=recipe, max_epochs=epoch_limit(recipe) or views.MAX_HARMLESS_EPOCHS)
    else:
        page = render_search_page(results, recipe=recipe, weights=weights)
        twin = render_search(results, recipe=recipe)
    path = run_dir / REPORT
    files.write_text(path.with_suffix(".md"), twin)
    files.write_text(path, page)
    return path


def render_page(results: Results, *, recipe: str, weights: str) -> str:
    """The page as text; ``recipe`` and ``weights`` (the two files' text) are shown as they are; see `read_public`."""
    return _page(
        "report.html.j2",
        results,
        outcome=sentences.outcome(results),
        forests=comparisons.forests(results),
        pairs=comparisons.pair_rows(results),
        explained=comparisons.explained_rows(results),
        task_rows=tasks.task_rows(results),
        task_differences=tasks.difference_rows(results),
        summaries=list(results.summary_labels.values()),
        max_epochs=epoch_limit(recipe) or views.MAX_HARMLESS_EPOCHS,
        limit_of_recipe=epoch_limit(recipe) is not None,
        lead_place=results.arm_names.index(results.lead),
        loss_views=list(results.summary_labels.values()),
        recipe=recipe,
        weights=weights,
    )


def render_search_page(answers: Answers, *, recipe: str, weights: str) -> str:
    """The page of a search that is not verified, as text; ``recipe`` and ``weights`` as in `render_page`."""
    return _page(
        "search.html.j2",
        answers,
        alarms=trust.alarm_rows(answers),
        costs=views.search_rows(answers),
        recipe=recipe,
        weights=weights,
    )


def _page(template: str, results: Answers, **shown: Any) -> str:
    return (
        templating.environment()
        .get_template(template)
        .render(
            results=results,
            views=views,
            sentences=sentences,
            trust=trust,
            arm_names=[visible(name) for name in results.arm_names],
            lead=visible(results.lead),
            control=visible(results.control),
            search=trust.lead_search(results),
            **shown,
            **_weight_axes(results),
            **_charts(results),
            **_scripts_and_styles(),
        )
    )


def _weight_axes(results: Answers) -> dict[str, Any]:
    shown = [w for row in views.weights_rows(results) for w in (row.prior, row.answer) if w is not None]
    return {"linear": axes.LinearAxis.covering(shown), "log": axes.LogAxis.covering(shown)}


def epoch_limit(recipe: str) -> float | None:
    """How often is too often, where the recipe says so."""
    return recipe_keys.number(recipe, "training", "max_epochs")


def _charts(results: Answers) -> dict[str, Any]:
    data, trajectory = chart_data(results), trust.trajectory(results)
    num_recorded = len(trajectory.steps) if trajectory else 1
    return {
        "data": Markup(script_json(data)),
        "has_trajectory": data["trajectory"] is not None,
        "has_losses": data["losses"] is not None,
        "has_task_curves": data["tasks"] is not None,
        "has_seeds": data["losses"] is not None and any(data["losses"]["seeds"]),
        "scroll": "scroll tall" if len(results.domains) > MAX_DOMAINS_IN_FULL else "scroll",
        "smoothing": num_averaged(num_recorded),
        "stride": stride(num_recorded),
    }


def _scripts_and_styles() -> dict[str, Markup]:
    """Our own files and the library, which go into the page as they are, and the hashes that let them run."""
    plotly, script = get_plotlyjs(), templating.source("report.js")
    return {
        "styles": Markup(templating.source("report.css")),
        "plotly": Markup(plotly),
        "script": Markup(script),
        "script_sources": Markup(" ".join(content_security_source(text) for text in (plotly, script))),
    }
