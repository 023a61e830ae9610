"""Results to the table that a run prints at its end: reads well at 80 columns, in a pipe and in a log file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from doremi.evidence.recorded_results import BASELINE, MAIN, Results, parse
from doremi.evidence.schema import SUMMARIES, Judged
from doremi.report import comparisons, numbers, sentences, trust, views
from doremi.text import visible

Encode = Callable[[str], str]

# Blank but for a rule of hyphens, which every terminal and every encoding has
RULED = Box("    \n    \n -- \n    \n -- \n    \n    \n    \n", ascii=True)
GAP = 2  # between columns
MIN_WIDTH = 80
MIN_NAME_WIDTH = 14
MIN_NUMBER_WIDTH, MAX_NUMBER_WIDTH = 6, 12  # longer names of runs are folded
SIZE_HEADS = ("tokens", "reference\nweight", "DoReMi\nweight")
DIFFERENCE_HEAD = f"{MAIN} -\n{BASELINE}"
PRIMARY_LABEL = next(iter(SUMMARIES.values()))  # what a verdict rests on


def summary_table(results: Mapping[str, Any]) -> SummaryTable:
    """The table of ``results``, the content of `results.json`: for `print`, or for a `rich.console.Console`.

    Domains with their weights and losses, the three summaries, the speed-up and the verdict. Runs for which the
    console is too narrow follow in tables of their own.

    Raises:
        InputError: ``results`` does not follow the schema.
    """
    return SummaryTable(parse(results))


@dataclass(frozen=True)
class SummaryTable:
    """Lays itself out for the console that prints it; names cannot style, move or break it."""

    results: Results

    def __str__(self) -> str:
        """As the console on standard output shows it."""
        console = Console()
        console.width = max(console.width, MIN_WIDTH)  # rather lines that wrap than columns that are left out
        with console.capture() as capture:
            console.print(self, end="")
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The tables, one after the other, and the lines below them."""
        encode: Encode = _ascii if options.ascii_only else str
        lines = list(_lines(self.results))
        names = [encode(visible(name)) for name in self.results.run_names]
        first, *others = _split_runs(names, width=options.max_width)
        yield Text("Held-out loss in nats per token (lower is better)\n")
        yield _main_table(lines, names, first, encode)
        for runs in others:
            yield Text("\nFurther runs\n")
            yield _further_table(lines, names, runs, encode)
        if self.results.headline:
            yield Text("")
            yield _evidence_table(self.results, encode)
        yield Text("")
        yield from (Text(encode(sentence)) for sentence in _sentences(self.results))


@dataclass(frozen=True)
class _Line:
    """One row of the tables; ``sizes`` are tokens and weights, ``losses`` in the order of the runs."""

    label: str
    sizes: tuple[str, str, str]
    losses: tuple[float | None, ...]
    difference: float | None
    ends_group: bool = False


def _lines(results: Results) -> Iterator[_Line]:
    """The domains, the three summaries, and these again without the domains at the floor."""
    yield from _grouped(_domain_line(row) for row in views.domain_rows(results))
    yield from _grouped(_summary_line(row) for row in views.summary_rows(results))
    without_floor = [_summary_line(row) for row in views.summary_rows_without_floor(results)]
    if without_floor:
        yield _Line("without floor:", ("", "", ""), (), None)
        yield from without_floor


def _grouped(lines: Iterable[_Line]) -> list[_Line]:
    *before, last = lines
    return [*before, replace(last, ends_group=True)]


def _domain_line(row: views.DomainRow) -> _Line:
    weights = numbers.percent(row.reference_weight), numbers.percent(row.doremi_weight)
    return _Line(row.name, (numbers.count(row.tokens), *weights), row.losses, row.difference)


def _summary_line(row: views.SummaryRow) -> _Line:
    foldable = row.label.replace("-", "-\n")
    return _Line(foldable, ("", "", ""), row.values, row.difference)


def _split_runs(names: Sequence[str], *, width: int) -> list[range]:
    """Positions of the runs of each table: as many as fit, baseline and main in the first whatever the width."""
    fixed = sum(GAP + _column_width(head) for head in (*SIZE_HEADS, DIFFERENCE_HEAD))
    tables, start, room = [], 0, width - MIN_NAME_WIDTH - fixed
    for position, name in enumerate(names):
        needed = GAP + _column_width(name)
        if needed > room and position > max(start, 1):
            tables.append(range(start, position))
            start, room = position, width - MIN_NAME_WIDTH
        room -= needed
    return [*tables, range(start, len(names))]


def _main_table(lines: Iterable[_Line], names: Sequence[str], runs: range, encode: Encode) -> Table:
    table = _ruled_table([*SIZE_HEADS, *(names[run] for run in runs), DIFFERENCE_HEAD])
    for line in lines:
        difference = numbers.signed(line.difference) if line.losses else ""
        table.add_row(
            Text(encode(line.label)), *line.sizes, *_losses(line, runs), difference, end_section=line.ends_group
        )
    return table


def _further_table(lines: Iterable[_Line], names: Sequence[str], runs: range, encode: Encode) -> Table:
    table = _ruled_table([names[run] for run in runs])
    for line in lines:
        table.add_row(Text(encode(line.label)), *_losses(line, runs), end_section=line.ends_group)
    return table


def _ruled_table(heads: Sequence[str]) -> Table:
    table = Table(box=RULED, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="")
    table.add_column("domain", overflow="fold", vertical="bottom", min_width=MIN_NAME_WIDTH)
    for head in heads:
        width = _column_width(head)
        table.add_column(Text(head), justify="right", overflow="fold", min_width=width, max_width=width)
    return table


def _column_width(head: str) -> int:
    needed = max(cell_len(line) for line in head.split("\n"))
    return min(max(needed, MIN_NUMBER_WIDTH), MAX_NUMBER_WIDTH)


def _losses(line: _Line, runs: range) -> list[Text]:
    """The losses of ``runs``, the lowest of all runs in bold; blank on a line that is a heading."""
    if not line.losses:
        return [Text("")] * len(runs)
    best = min((loss for loss in line.losses if loss is not None), default=None)
    return [
        Text(numbers.nats(loss), style="bold" if loss is not None and loss == best else "")
        for loss in (line.losses[run] for run in runs)
    ]


def _evidence_table(results: Results, encode: Encode) -> Table:
    """The summaries of main - baseline, then what a verdict rests on for every other pair, each with its interval."""
    first, *others = comparisons.pair_rows(results)
    table = Table(box=RULED, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="")
    table.add_column("difference", overflow="fold", vertical="bottom", min_width=MIN_NAME_WIDTH)
    for head in ("nats per\ntoken", f"95 % interval\nover {first.basis.value}"):
        table.add_column(Text(head), justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True, vertical="bottom")
    table.add_row(f"{first.tuned} - {first.baseline}:")
    for label, judged in zip(SUMMARIES.values(), first.summaries, strict=True):
        table.add_row(f"  {label}", *_judged(judged))
    if others:
        table.add_row(f"{PRIMARY_LABEL}:")
    for pair in others:
        table.add_row(Text(encode(f"  {pair.tuned} - {pair.baseline}")), *_judged(pair.summaries[0]))
    return table


def _judged(judged: Judged) -> tuple[str, str, str]:
    return numbers.signed(judged.value), numbers.interval(judged.ends), judged.outcome


def _sentences(results: Results) -> Iterator[str]:
    """What is said below the tables; the verdict last, where a person looks first."""
    if at_floor := sentences.at_floor(results):
        yield sentences.capitalised(at_floor)
    yield f"Lower than the baseline on {results.num_better} of {results.num_domains} domains"
    if results.headline:
        forest = comparisons.forest(results.headline)
        yield f"Domains, Holm-corrected over {forest.basis.value}: {sentences.tally(forest.tally)}"
    factor = views.speed_up(results)
    yield f"Speed-up{'' if factor is None else ' ' + numbers.factor(factor)}: {sentences.speed_up(results)}"
    if cost := sentences.cost(results):
        yield f"Cost: {cost}"
    if results.alarms:
        kinds = ", ".join(row.name for row in trust.alarm_rows(results))
        yield f"Alarms ({kinds}): the report says what they found and what to do"
    yield visible(results.verdict)


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
