"""``doremi plan RECIPE``: what it will take, before anything runs."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from doremi.errors import InputError
from doremi.launch import console

if TYPE_CHECKING:
    from doremi.experiment.recipe import Recipe
    from doremi.planning import Plan
    from doremi.planning.pace import Pace

DEFAULT_MFU = 0.4  # share of the peak that a plan assumes


def add_plan(verbs: argparse._SubParsersAction) -> None:
    """The verb and its flags."""
    plan = verbs.add_parser(
        "plan",
        help="parameters, FLOPs, epochs, memory, disk, time and money of search and verification; trains nothing",
        description="Works out what a recipe will take, search and verification apart: parameters, tokens, FLOPs and "
        "their share of a run that verifies an answer, epochs of each domain (once the corpus is prepared), memory, "
        "disk, hours and money for a device. Says what to look at again: domains repeated too often, batches or "
        "proxies that are too small.",
    )
    plan.add_argument("recipe", metavar="RECIPE", type=Path, help="YAML file")
    plan.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: runs/<name of the recipe>)")
    plan.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="as in `doremi run`"
    )
    plan.add_argument("--devices", type=int, default=1, metavar="N", help="accelerators to train on (default: 1)")
    pace = plan.add_mutually_exclusive_group()
    pace.add_argument("--device", metavar="NAME", help="accelerator to plan for, such as h100-sxm or a100-80gb")
    pace.add_argument(
        "--measure", action="store_true", help="time a few real steps of each kind of run on this machine"
    )
    plan.add_argument("--mfu", type=float, metavar="F", help=f"share of --device's peak (default: {DEFAULT_MFU})")
    plan.add_argument("--price", type=float, metavar="USD", help="of one accelerator for an hour")
    plan.add_argument("--json", action="store_true", help="print JSON instead of tables")
    plan.set_defaults(action=_plan)


def _plan(options: argparse.Namespace) -> None:
    from doremi import planning
    from doremi.experiment import recipe

    _check_flags(options)
    loaded = recipe.load(options.recipe, options.overrides)
    out = options.out or Path("runs") / options.recipe.stem
    plan = planning.make(loaded, out, num_devices=options.devices)
    pace = _pace(options, loaded, plan)
    if options.json:
        print(json.dumps(planning.to_dict(plan) | _times(plan, pace, options.price), indent=1))
    else:
        console.show(planning.show(plan, loaded, pace=pace, price=options.price))


def _check_flags(options: argparse.Namespace) -> None:
    if options.devices < 1:
        raise InputError(f"--devices {options.devices}: at least 1")
    if options.price is not None and not (options.device or options.measure):
        raise InputError("--price: for how many hours? Give --device NAME too, or --measure")
    if options.price is not None and not 0 < options.price < math.inf:
        raise InputError(f"--price {options.price:g}: it must be above 0, and finite")
    if options.mfu is not None and options.device is None:
        raise InputError("--mfu: of which peak? Give --device NAME too; --measure needs no assumption")


def _pace(options: argparse.Namespace, recipe: Recipe, plan: Plan) -> Pace | None:
    from doremi.planning import devices, doubts
    from doremi.planning.pace import AssumedPace

    if options.device is not None:
        device = devices.find(options.device)
        mfu = DEFAULT_MFU if options.mfu is None else options.mfu
        plan.doubts.extend(doubts.memory(plan.memories, device_gb=device.memory_gb, device=options.device))
        return AssumedPace(options.device, device, mfu, options.devices)
    if options.measure:
        from doremi.planning import measurement

        return measurement.measure(recipe, plan.stages, plan.sizes, store=plan.store, num_devices=options.devices)
    return None


def _times(plan: Plan, pace: Pace | None, price: float | None) -> dict[str, object]:
    """Hours of each stage, and what all of them cost, for the JSON."""
    if pace is None:
        return {}
    from doremi.evaluation.perplexity import finite

    hours = dict.fromkeys((stage.name for stage in plan.stages), 0.0)
    for stage in plan.stages:
        hours[stage.name] += pace.seconds(stage) / 3600
    total = sum(hours.values()) + (pace.seconds_for(plan.held_out.flops) / 3600 if plan.held_out else 0.0)
    cost = {} if price is None else {"usd": finite(total * plan.num_devices * price)}
    return {
        "pace": pace.describe(),
        "hours": {name: finite(spent) for name, spent in hours.items()},
        "total_hours": finite(total),
        **cost,
    }
