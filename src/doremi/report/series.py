"""Results to the data of the interactive charts: what `report.js` reads, small enough for 200 domains.

Only numbers and labels; how they look is said in `report.css` and `report.js`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from doremi.evidence.answers import Answers
from doremi.evidence.curves import Curve
from doremi.evidence.parts import Measured
from doremi.evidence.schema import Results
from doremi.report import trust
from doremi.report.views import domain_order, other_sets
from doremi.text import plotly_text

MAX_POINTS = 500  # more than a chart has room for; 200 domains of 3 series make 2.5 MB
SIGNIFICANT_DIGITS = 5


def chart_data(results: Answers) -> dict[str, Any]:
    """``{"trajectory": ..., "losses": ..., "tasks": ...}``, each None when nothing was recorded."""
    verified = results if isinstance(results, Results) else None
    return {
        "trajectory": trajectory_data(results),
        "losses": verified and losses_data(verified),
        "tasks": verified and tasks_data(verified),
    }


def trajectory_data(results: Answers) -> dict[str, Any] | None:
    """Steps and, for every domain in `domain_order`, ᾱ, α and λ (a running mean: single steps are noise)."""
    trajectory = trust.trajectory(results)
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
    """Steps by arm, and for each view the losses by arm, and by seed; the control is the first arm.

    Views are the summaries, the target first, then the domains in `domain_order` and the other sets.
    ``seeds[arm][seed][view]`` has the summaries alone, and is empty for an arm with one seed.
    """
    curves = {arm: curve for arm in results.arm_names if (curve := results.arms[arm].curve)}
    if not any(curve.steps for curve in curves.values()):
        return None
    keys, names = list(results.summary_labels), [*domain_order(results), *other_sets(results)]
    return {
        "runs": [plotly_text(arm) for arm in curves],
        "control": plotly_text(results.control),
        "steps": [_thinned(curve.steps) for curve in curves.values()],
        "seeds": [_summaries_by_seed(curve, keys) for curve in curves.values()],
        "views": [
            *([_rounded(curve.summaries.get(key, [])) for curve in curves.values()] for key in keys),
            *([_rounded(curve.nats.get(name, [])) for curve in curves.values()] for name in names),
        ],
    }


def tasks_data(results: Results) -> dict[str, Any] | None:
    """The average over few-shot tasks of every arm with several checkpoints; ``run`` is its place in the colours."""
    curves = results.tasks.curves if results.tasks else {}
    lines = [
        {
            "name": plotly_text(arm),
            "run": index,
            "steps": _thinned(curves[arm].steps),
            "values": _rounded(curves[arm].average),
        }
        for index, arm in enumerate(results.arm_names)
        if arm in curves
    ]
    return {"lines": lines} if lines else None


def _summaries_by_seed(curve: Curve, keys: Sequence[str]) -> dict[str, list[list[Measured]]]:
    return {seed: [_rounded(of_seed.get(key, [])) for key in keys] for seed, of_seed in curve.by_seed.items()}


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
