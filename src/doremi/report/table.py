"""Results to the table that a run prints at its end: reads well at 80 columns, in a pipe and in a log file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from doremi.evidence.outcomes import Judged
from doremi.evidence.schema import Results
from doremi.report import comparisons, numbers, sentences, trust, views
from doremi.text import visible

Encode = Callable[[str], str]

# Blank but for a rule of hyphens, which every terminal and every encoding has
RULED = Box("    \n    \n -- \n    \n -- \n    \n    \n    \n", ascii=True)
GAP = 2  # between columns
MIN_WIDTH = 80
MIN_NAME_WIDTH = 14
MIN_NUMBER_WIDTH, MAX_NUMBER_WIDTH = 6, 12  # longer names of runs are folded
NUM_FIRST = 2  # arms that the first table has whatever the width: the control and the one after it


@dataclass(frozen=True)
class SummaryTable:
    """The table of `Results`: for `print`, or for a `rich.console.Console`; names cannot style, move or break it.

    Domains with their weights and losses, the summaries, the speed-up and the verdict. It lays itself out for the
    console that prints it: arms for which that is too narrow follow in tables of their own.
    """

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
        names = [encode(visible(name)) for name in self.results.arm_names]
        heads = _Heads.of(self.results, encode)
        first, *others = _split_arms(names, heads, width=options.max_width)
        yield Text("Held-out loss in nats per token (lower is better)\n")
        yield _first_table(lines, names, heads, first, encode)
        for arms in others:
            yield Text("\nFurther arms\n")
            yield _further_table(lines, names, arms, encode)
        if self.results.headline:
            yield Text("")
            yield _evidence_table(self.results, encode)
        yield Text("")
        yield from (Text(encode(sentence)) for sentence in _sentences(self.results))


@dataclass(frozen=True)
class _Heads:
    """The heads of the columns that are not an arm's losses."""

    sizes: tuple[str, str, str]
    difference: str | None  # None: nothing was compared

    @classmethod
    def of(cls, results: Results, encode: Encode) -> _Heads:
        lead, control = (encode(visible(name)) for name in (results.lead, results.control))
        compared = results.headline is not None
        return cls(("tokens", "reference\nweight", f"{lead}\nweight"), f"{lead} -\n{control}" if compared else None)

    def __iter__(self) -> Iterator[str]:
        yield from self.sizes
        if self.difference is not None:
            yield self.difference


@dataclass(frozen=True)
class _Line:
    """One row of the tables; ``sizes`` are tokens and weights, ``losses`` in the order of the arms."""

    label: str
    sizes: tuple[str, str, str]
    losses: tuple[float | None, ...]
    difference: float | None
    ends_group: bool = False


def _lines(results: Results) -> Iterator[_Line]:
    """The domains, other evaluation sets, the summaries, and these again without the domains at the floor."""
    yield from _grouped(_domain_line(row) for row in views.domain_rows(results))
    if sets := views.set_rows(results):
        yield from _grouped(_domain_line(row) for row in sets)
    yield from _grouped(_summary_line(row) for row in views.summary_rows(results))
    without_floor = [_summary_line(row) for row in views.summary_rows_without_floor(results)]
    if without_floor:
        yield _Line("without floor:", ("", "", ""), (), None)
        yield from without_floor


def _grouped(lines: Iterable[_Line]) -> list[_Line]:
    *before, last = lines
    return [*before, replace(last, ends_group=True)]


def _domain_line(row: views.DomainRow) -> _Line:
    weights = numbers.percent(row.prior), numbers.percent(row.answer)
    return _Line(row.name, (numbers.count(row.tokens), *weights), row.losses, row.difference)


def _summary_line(row: views.SummaryRow) -> _Line:
    foldable = row.label.replace("-", "-\n")
    return _Line(foldable, ("", "", ""), row.values, row.difference)


def _split_arms(names: Sequence[str], heads: _Heads, *, width: int) -> list[range]:
    """Positions of the arms of each table: as many as fit, the first `NUM_FIRST` in the first whatever the width."""
    fixed = sum(GAP + _column_width(head) for head in heads)
    tables, start, room = [], 0, width - MIN_NAME_WIDTH - fixed
    for position, name in enumerate(names):
        needed = GAP + _column_width(name)
        if needed > room and position > max(start, NUM_FIRST - 1):
            tables.append(range(start, position))
            start, room = position, width - MIN_NAME_WIDTH
        room -= needed
    return [*tables, range(start, len(names))]


def _first_table(lines: Iterable[_Line], names: Sequence[str], heads: _Heads, arms: range, encode: Encode) -> Table:
    compared = [] if heads.difference is None else [heads.difference]
    table = _ruled_table([*heads.sizes, *(names[arm] for arm in arms), *compared])
    for line in lines:
        difference = numbers.signed(line.difference) if line.losses else ""
        last = [difference] if compared else []
        table.add_row(Text(encode(line.label)), *line.sizes, *_losses(line, arms), *last, end_section=line.ends_group)
    return table


def _further_table(lines: Iterable[_Line], names: Sequence[str], arms: range, encode: Encode) -> Table:
    table = _ruled_table([names[arm] for arm in arms])
    for line in lines:
        table.add_row(Text(encode(line.label)), *_losses(line, arms), end_section=line.ends_group)
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


def _losses(line: _Line, arms: range) -> list[Text]:
    """The losses of ``arms``, the lowest of all in bold; blank on a line that is a heading."""
    if not line.losses:
        return [Text("")] * len(arms)
    best = min((loss for loss in line.losses if loss is not None), default=None)
    return [
        Text(numbers.nats(loss), style="bold" if loss is not None and loss == best else "")
        for loss in (line.losses[arm] for arm in arms)
    ]


def _evidence_table(results: Results, encode: Encode) -> Table:
    """The summaries of the first pair, then the target of every other one, each with its interval."""
    labels = list(results.summary_labels.values())
    first, *others = comparisons.pair_rows(results)
    table = Table(box=RULED, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="")
    table.add_column("difference", overflow="fold", vertical="bottom", min_width=MIN_NAME_WIDTH)
    for head in ("nats per\ntoken", f"95 % interval\nover {first.basis.value}"):
        table.add_column(Text(head), justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True, vertical="bottom")
    table.add_row(Text(encode(f"{first.tuned} - {first.baseline}:")))
    for label, judged in zip(labels, first.summaries, strict=True):
        table.add_row(f"  {label}", *_judged(judged))
    if others:
        table.add_row(f"{labels[0]}:")
    for pair in others:
        table.add_row(Text(encode(f"  {pair.tuned} - {pair.baseline}")), *_judged(pair.summaries[0]))
    return table


def _judged(judged: Judged) -> tuple[str, str, str]:
    return numbers.signed(judged.value), numbers.interval(judged.ends), judged.outcome


def _sentences(results: Results) -> Iterator[str]:
    """What is said below the tables; the verdict last, where a person looks first."""
    if at_floor := sentences.at_floor(results):
        yield sentences.capitalised(at_floor)
    yield from _compared(results)
    if cost := sentences.cost(results):
        yield f"Cost: {cost}"
    if alarms := trust.alarm_rows(results):
        yield f"Alarms ({', '.join(row.name for row in alarms)}): the report says what they found and what to do"
    if recommendation := sentences.recommendation(results):
        yield f"Recommended: {recommendation}"
    yield visible(results.verdict)


def _compared(results: Results) -> Iterator[str]:
    if results.headline is None:
        return
    num_domains = len(results.domains)
    yield f"Lower than {visible(results.control)} on {views.num_lower(results)} of {num_domains} domains"
    forest = comparisons.forest(results.headline, results.summary_labels)
    yield f"Domains, Holm-corrected over {forest.basis.value}: {sentences.tally(forest.tally)}"
    factor = views.speed_up(results)
    yield f"Speed-up{'' if factor is None else ' ' + numbers.factor(factor)}: {sentences.speed_up(results)}"


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
