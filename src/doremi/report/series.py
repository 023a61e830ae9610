"""Results to the data of the interactive charts: what `report.js` reads, small enough for 200 domains.

Only numbers and labels; how they look is said in `report.css` and `report.js`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from doremi.evidence.recorded import Curves
from doremi.evidence.recorded_results import Results
from doremi.evidence.schema import Measured
from doremi.report.views import domain_order
from doremi.text import plotly_text

MAX_POINTS = 500  # more than a chart has room for; 200 domains of 3 series make 2.5 MB
SIGNIFICANT_DIGITS = 5
SUMMARY_VIEWS = {
    "reference_mean_nats": "reference-weighted mean",  # first: the speed-up is read off this one
    "uniform_mean_nats": "uniform mean",
    "worst_nats": "worst domain",
}


def chart_data(results: Results) -> dict[str, Any]:
    """``{"trajectory": ..., "losses": ..., "tasks": ...}``, each None when nothing was recorded."""
    return {"trajectory": trajectory_data(results), "losses": losses_data(results), "tasks": tasks_data(results)}


def trajectory_data(results: Results) -> dict[str, Any] | None:
    """Steps and, for every domain in `domain_order`, ᾱ, α and λ (a running mean: single steps are noise)."""
    trajectory = results.trajectory
    if trajectory is None or not trajectory.steps:
        return None
    names = domain_order(results)
    window = num_averaged(len(trajectory.steps))
    return {
        "steps": _thinned(trajectory.steps),
        "names": [plotly_text(name) for name in names],
        "series": {
            "average_weights": [_rounded(trajectory.average_weights.get(name, [])) for name in names],
            "dro_weights": [_rounded(trajectory.dro_weights.get(name, [])) for name in names],
            "excess_losses": [
                _rounded(running_mean(trajectory.excess_losses.get(name, []), window=window)) for name in names
            ],
        },
    }


def losses_data(results: Results) -> dict[str, Any] | None:
    """Steps by run, for each view (`SUMMARY_VIEWS`, then the domains in `domain_order`) the losses by run, and by seed.

    ``seeds[run][seed][view]`` has the summaries alone, and is empty for a run with one seed.
    """
    curves = {run: results.curves[run] for run in results.run_names if run in results.curves}
    if not any(curve.steps for curve in curves.values()):
        return None
    return {
        "runs": [plotly_text(run) for run in curves],
        "steps": [_thinned(curve.steps) for curve in curves.values()],
        "seeds": [_summaries_by_seed(curve) for curve in curves.values()],
        "views": [
            *([_rounded(getattr(curve, field)) for curve in curves.values()] for field in SUMMARY_VIEWS),
            *([_rounded(curve.nats.get(name, [])) for curve in curves.values()] for name in domain_order(results)),
        ],
    }


def tasks_data(results: Results) -> dict[str, Any] | None:
    """The average over few-shot tasks of every run with several checkpoints; ``run`` is its place in the colours."""
    curves = results.tasks.curves if results.tasks else {}
    lines = [
        {
            "name": plotly_text(run),
            "run": index,
            "steps": _thinned(curves[run].steps),
            "values": _rounded(curves[run].average),
        }
        for index, run in enumerate(results.run_names)
        if run in curves
    ]
    return {"lines": lines} if lines else None


def _summaries_by_seed(curve: Curves) -> dict[str, list[list[Measured]]]:
    return {seed: [_rounded(getattr(of_seed, f)) for f in SUMMARY_VIEWS] for seed, of_seed in curve.by_seed.items()}


def stride(num_points: int) -> int:
    """Every how many points one is drawn."""
    return max(1, -(-num_points // MAX_POINTS))


def num_averaged(num_points: int) -> int:
    """Points in the running mean of λ: a fortieth of them all, an odd number."""
    return 2 * (num_points // 80) + 1


def running_mean(values: Sequence[Measured], *, window: int) -> list[Measured]:
    """The mean of the ``window`` values around each one, fewer at both ends; null ones are left out."""
    half = window // 2
    around = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [_mean([v for v in nearby if v is not None]) for nearby in around]


def _mean(values: Sequence[float]) -> Measured:
    return sum(values) / len(values) if values else None


def _thinned(values: Sequence[Any]) -> list[Any]:
    """Every `stride`-th value counted from the last, so that the final one is always among them."""
    return list(values[::-1][:: stride(len(values))][::-1])


def _rounded(values: Sequence[Measured]) -> list[Measured]:
    return [None if v is None else float(f"{v:.{SIGNIFICANT_DIGITS}g}") for v in _thinned(values)]
