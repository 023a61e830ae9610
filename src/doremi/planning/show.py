"""A plan as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from doremi.experiment.recipe import Recipe
from doremi.launch import console
from doremi.planning.pace import Pace
from doremi.planning.plan import Plan
from doremi.planning.stages import Stage
from doremi.text import visible

NOT_KNOWN = "not known"
MAX_DOMAINS = 100  # rows of the table of epochs


def show(plan: Plan, recipe: Recipe, *, pace: Pace | None = None, price: float | None = None) -> str:
    """Stages, epochs, memory, disk and doubts; hours where the pace is known, money with a price in USD.

    Args:
        plan: of the recipe.
        recipe: it says what the corpus is made from.
        pace: of the devices.
        price: of one device for an hour.
    """
    parts = [
        "Stages",
        *_table(_stage_rows(plan, pace, price)),
        *_footnotes(plan, recipe, pace),
        *(["", "Epochs of each domain", *_table(_epoch_rows(plan))] if plan.store else []),
        "",
        _memory_line(plan),
        _disk_line(plan),
        *(
            ["", "Doubts", *(console.wrapped(doubt, indent="    ", first="  - ") for doubt in plan.doubts)]
            if plan.doubts
            else []
        ),
    ]
    return "\n".join(parts)


def _stage_rows(plan: Plan, pace: Pace | None, price: float | None) -> Iterator[list[str]]:
    timed = ["hours"] if pace else []
    share = f"of a {plan.verify_size} run"
    yield ["", "models", "parameters", "tokens each", "FLOPs", share, *timed, *(["USD"] if price else [])]
    seconds = 0.0
    for part, flops in (("search", plan.search_flops), ("verification", plan.verification_flops)):
        trained = [stage for stage in plan.stages if stage.part == part]
        for stage in trained:
            if stage.num_models > 0:
                yield [
                    f"train {_label(stage)}",
                    f"{stage.num_models}",
                    f"{stage.size.num_parameters:,}",
                    f"{stage.num_tokens:,}",
                    *_costs(stage.flops, pace.seconds(stage) if pace else None, plan, price),
                ]
        spent = sum(map(pace.seconds, trained)) if pace else None
        yield [part, "", "", "", *_costs(flops, spent, plan, price)]
        seconds += spent or 0.0
    if plan.held_out:
        scoring = plan.held_out
        spent = pace.seconds_for(scoring.flops) if pace else None
        label = f"score held-out text ({scoring.num_tokens:,} tokens)"
        yield [label, "", "", "", *_costs(scoring.flops, spent, plan, price)]
        seconds += spent or 0.0
    yield ["all", "", "", "", *_costs(plan.total_flops, seconds if pace else None, plan, price)]


def _label(stage: Stage) -> str:
    """The stage, and the methods whose models are some of its own."""
    also = f" (and {', '.join(stage.also)})" if stage.also else ""
    return visible(f"{stage.name}{also}")


def _costs(flops: float, seconds: float | None, plan: Plan, price: float | None) -> list[str]:
    """FLOPs, their share of a run that verifies an answer, and hours and money where they are known."""
    return [_number(flops, ".2e"), _number(flops / plan.verify_flops, ".3f"), *_cost(seconds, plan, price)]


def _cost(seconds: float | None, plan: Plan, price: float | None) -> list[str]:
    if seconds is None:
        return []
    hours = seconds / 3600
    return [_number(hours, ",.2f"), *([_number(hours * plan.num_devices * price, ",.2f")] if price else [])]


def _number(value: float, format_: str) -> str:
    return NOT_KNOWN if math.isnan(value) else format(value, format_)


def _footnotes(plan: Plan, recipe: Recipe, pace: Pace | None) -> Iterator[str]:
    if plan.store is None:
        inputs = recipe.corpus.store or ", ".join(item.source for item in recipe.corpus.inputs)
        text = f"corpus: {inputs}: tokens and epochs are known once `doremi prepare` has run"
        yield console.wrapped(text, indent="    ", first="  ")
    else:
        tokens = sum(plan.store.num_tokens(name) for name in plan.store.names)
        yield f"  corpus: {tokens:,} tokens in {len(plan.store.names)} domains (prepared)"
    if plan.is_bound:
        yield "  search: planned for all models that there may be; it may end sooner"
    if pace is not None:
        times = f"times: {pace.describe()}; without preparing, saving and waiting in queues"
        yield console.wrapped(times, indent="    ", first="  ")


def _epoch_rows(plan: Plan) -> Iterator[list[str]]:
    assert plan.store is not None
    trained = [stage for stage in plan.stages if stage.num_models > 0]
    yield ["domain", "tokens", *(visible(stage.name) for stage in trained)]
    names = [name for name in plan.store.names if any(name in (stage.epochs or {}) for stage in trained)]
    for name in names[:MAX_DOMAINS]:
        epochs = ["?" if stage.epochs is None else f"{stage.epochs.get(name, 0.0):.2f}" for stage in trained]
        yield [visible(name), f"{plan.store.num_tokens(name):,}", *epochs]
    if len(names) > MAX_DOMAINS:
        yield [f"and {len(names) - MAX_DOMAINS} more (--json has all)", ""]
    if any(stage.epochs is None for stage in trained):
        yield ["? is known once the search has given the weights", ""]


def _memory_line(plan: Plan) -> str:
    needed = ", ".join(
        f"{run} {_size(memory.known)}{' and activations (not known)' if memory.total is None else ''}"
        for run, memory in plan.memories.items()
    )
    return console.wrapped(f"Memory on each device, about: {needed}", indent="  ", first="")


def _disk_line(plan: Plan) -> str:
    disk = plan.disk
    corpus = "corpus not known yet" if disk.corpus is None else f"corpus {_size(disk.corpus)}"
    losses = f", reference losses {_size(disk.reference_losses)}" if disk.reference_losses else ""
    models = f"models {_size(disk.models)}, checkpoints {_size(disk.checkpoints)}"
    return console.wrapped(f"Disk: {_size(disk.total)} ({corpus}, {models}{losses})", indent="  ", first="")


def _size(num_bytes: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"


def _table(rows: Iterator[list[str]]) -> Iterator[str]:
    """The first column to the left, numbers to the right; a row that is too short is a remark.

    On a terminal that is too narrow for all columns, one table below the other.
    """
    lines: Sequence[list[str]] = list(rows)
    num_columns = len(lines[0])
    whole = [line for line in lines if len(line) == num_columns]
    widths = [max(len(line[column]) for line in whole) for column in range(num_columns)]
    for number, columns in enumerate(_groups(widths, console.width())):
        if number:
            yield ""
        for line in lines if number == 0 else whole:
            cells = [line[column].rjust(widths[column]) for column in columns if column < len(line)]
            yield "  ".join(["", line[0].ljust(widths[0]), *cells]).rstrip()


def _groups(widths: Sequence[int], limit: int | None) -> list[list[int]]:
    """The columns after the first, in as many tables as it takes to stay within ``limit``."""
    groups: list[list[int]] = [[]]
    taken = 2 + widths[0]
    for column, width in enumerate(widths[1:], start=1):
        if limit is not None and groups[-1] and taken + 2 + width > limit:
            groups.append([])
            taken = 2 + widths[0]
        groups[-1].append(column)
        taken += 2 + width
    return groups
