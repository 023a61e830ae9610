"""A run directory to one self-contained HTML page and its Markdown twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from doremi import files
from doremi.evidence.results_file import load, read_public
from doremi.evidence.schema import Results
from doremi.report import axes, comparisons, recipe_keys, sentences, tasks, templating, trust, views
from doremi.report.markdown import render_markdown
from doremi.report.series import chart_data, num_averaged, stride
from doremi.text import content_security_source, script_json, visible

REPORT = "report.html"
MAX_DOMAINS_IN_FULL = 30  # longer tables scroll inside the page


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` and its twin ``report.md`` from the files beside them; returns the page's path.

    Reads ``results.json``, ``recipe.yaml`` and ``weights.json``.

    Raises:
        MissingFileError: the folder or one of the three files does not exist.
        InputError: one of them is not what it should be.
    """
    results, recipe = load(run_dir), read_public(run_dir / "recipe.yaml")
    page = render_page(results, recipe=recipe, weights=read_public(run_dir / "weights.json"))
    path = run_dir / REPORT
    twin = render_markdown(results, recipe=recipe, max_epochs=epoch_limit(recipe) or views.MAX_HARMLESS_EPOCHS)
    files.write_text(path.with_suffix(".md"), twin)
    files.write_text(path, page)
    return path


def render_page(results: Results, *, recipe: str, weights: str) -> str:
    """The page as text; ``recipe`` and ``weights`` (the two files' text) are shown as they are; see `read_public`."""
    return (
        templating.environment()
        .get_template("report.html.j2")
        .render(
            results=results,
            views=views,
            sentences=sentences,
            trust=trust,
            outcome=sentences.outcome(results),
            forests=comparisons.forests(results),
            pairs=comparisons.pair_rows(results),
            explained=comparisons.explained_rows(results),
            task_rows=tasks.task_rows(results),
            task_differences=tasks.difference_rows(results),
            summaries=list(results.summary_labels.values()),
            max_epochs=epoch_limit(recipe) or views.MAX_HARMLESS_EPOCHS,
            limit_of_recipe=epoch_limit(recipe) is not None,
            arm_names=[visible(name) for name in results.arm_names],
            lead=visible(results.lead),
            control=visible(results.control),
            lead_place=results.arm_names.index(results.lead),
            search=trust.lead_search(results),
            loss_views=list(results.summary_labels.values()),
            recipe=recipe,
            weights=weights,
            **_weight_axes(results),
            **_charts(results),
            **_scripts_and_styles(),
        )
    )


def _weight_axes(results: Results) -> dict[str, Any]:
    shown = [w for row in views.domain_rows(results) for w in (row.prior, row.answer) if w is not None]
    return {"linear": axes.LinearAxis.covering(shown), "log": axes.LogAxis.covering(shown)}


def epoch_limit(recipe: str) -> float | None:
    """How often is too often, where the recipe says so."""
    return recipe_keys.number(recipe, "training", "max_epochs")


def _charts(results: Results) -> dict[str, Any]:
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
