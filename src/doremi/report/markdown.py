"""Results to `report.md`, the twin of the page: the same numbers from the same views, as text and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from doremi.evidence.answers import Answers
from doremi.evidence.outcomes import Judged, Outcome
from doremi.evidence.schema import Results
from doremi.evidence.statistics import Estimate
from doremi.report import comparisons, numbers, sentences, tasks, trust, views
from doremi.report.comparisons import Forest
from doremi.report.markdown_blocks import code_block, paragraph, table
from doremi.text import markdown_text, visible


def render_markdown(results: Results, *, recipe: str, max_epochs: float) -> str:
    """The document as text. ``recipe`` is shown as it is; ``max_epochs`` is how often is too often for a domain."""
    sections = (
        _head(results),
        _weights(results),
        _summaries(results),
        _differences(results),
        _compared(results),
        _domains(results),
        _repetition(results, max_epochs),
        _trust(results),
        _tasks(results),
        _runs(results),
        _recipe(results, recipe),
    )
    return "\n\n".join(block for section in sections for block in section) + "\n"


def render_search(answers: Answers, *, recipe: str) -> str:
    """The document of a search that is not verified: alarms first, where there are any."""
    weights, doubts = [_before_and_after(answers), _every_answer(answers)], [_trust(answers)]
    found = doubts + weights if trust.alarm_rows(answers) else weights + doubts
    sections = (_search_head(answers), *found, _others(answers), _search_cost(answers), _recipe(answers, recipe))
    return "\n\n".join(block for section in sections for block in section) + "\n"


def _search_head(answers: Answers) -> Iterator[str]:
    yield "# DoReMi report of a search"
    yield markdown_text(sentences.NOT_VERIFIED)
    yield paragraph("Answers", sentences.answers(answers))
    yield markdown_text(sentences.TO_VERIFY)


def _every_answer(answers: Answers) -> Iterator[str]:
    yield "## The answer of every method"
    yield table(
        ["domain", "tokens", "before", *map(visible, answers.arm_names)],
        (
            [row.name, numbers.count(row.tokens), numbers.percent(row.prior),
             *map(numbers.with_spread, row.weights, row.spreads)]
            for row in views.weights_rows(answers)
        ),
    )  # fmt: skip
    if found := sentences.at_floor(answers):
        yield paragraph("Domains", found)


def _others(answers: Answers) -> Iterator[str]:
    for label, facts in sentences.other_searches(answers):
        yield f"## How far the weights of {markdown_text(label)} can be trusted"
        yield table(["check", "figure"], facts)


def _search_cost(answers: Answers) -> Iterator[str]:
    yield "## Cost"
    yield paragraph("Search", sentences.search_cost(answers))
    yield table(
        ["stage", "parameters", "tokens", "FLOPs", "time"],
        (
            [row.name, numbers.count(row.num_parameters), numbers.count(row.num_tokens), numbers.count(row.flops),
             numbers.duration(row.train_seconds)]
            for row in views.search_rows(answers)
        ),
    )  # fmt: skip


def _head(results: Results) -> Iterator[str]:
    yield "# DoReMi report"
    yield paragraph("Verdict", results.verdict)  # which begins with the outcome
    if recommendation := sentences.recommendation(results):
        yield paragraph("Recommended", recommendation)
    yield paragraph("Speed-up", sentences.speed_up(results))
    if cost := sentences.cost(results):
        yield paragraph("Cost", cost)


def _before_and_after(results: Answers) -> Iterator[str]:
    yield "## Weights before and after"
    yield table(
        ["domain", "tokens", "before", "after", "factor"],
        (
            [row.name, numbers.count(row.tokens), numbers.percent(row.prior), numbers.percent(row.answer),
             numbers.factor(row.ratio)]
            for row in views.weights_rows(results)
        ),
    )  # fmt: skip


def _weights(results: Results) -> Iterator[str]:
    yield from _before_and_after(results)
    yield "### The weights of every arm"
    yield table(
        ["domain", *map(visible, results.arm_names)],
        ([row.name, *map(numbers.percent, row.weights)] for row in views.weights_rows(results)),
    )


def _summaries(results: Results) -> Iterator[str]:
    yield "## Summaries"
    yield "Held-out loss in nats per token; lower is better."
    yield paragraph("Target", sentences.target_in_full(results))
    heads = ["summary", *map(visible, results.arm_names), *_difference_head(results)]
    rows = views.summary_rows(results)
    yield table(heads, ([row.label, *_losses(results, row.values, row.difference)] for row in rows))
    if found := sentences.at_floor(results):
        rows = views.summary_rows_without_floor(results)
        yield paragraph("Without the domains at the floor", found)
        yield table(heads, ([row.label, *_losses(results, row.values, row.difference)] for row in rows))


def _difference_head(results: Results) -> list[str]:
    return [f"{visible(results.lead)} - {visible(results.control)}"] if results.headline else []


def _losses(results: Results, losses: Iterable[float | None], difference: float | None) -> list[str]:
    return [*map(numbers.nats, losses), *([numbers.signed(difference)] if results.headline else [])]


def _differences(results: Results) -> Iterator[str]:
    forests = comparisons.forests(results)
    if forests:
        yield "## Differences, and how sure they are"
        yield "Nats per token with 95 % intervals; negative is better. Outcomes of domains are Holm-corrected."
    for forest in forests:
        yield f"### {markdown_text(forest.tuned)} - {markdown_text(forest.baseline)}"
        yield paragraph("Intervals", sentences.basis(forest))
        yield _forest(forest)


def _forest(forest: Forest) -> str:
    return table(
        ["domain", "outcome", "difference", "95 % interval", "p (Holm)"],
        (
            [row.name, _outcome(row.judged), numbers.signed(row.judged.value), numbers.interval(row.judged.ends),
             numbers.p_value(row.judged.holm_p_value)]
            for row in (*forest.summaries, *forest.sets, *forest.domains)
        ),
        num_texts=2,
    )  # fmt: skip


def _outcome(judged: Judged) -> str:
    return f"{judged.outcome}: {judged.reason}" if judged.outcome is Outcome.NOT_MEASURED else judged.outcome


def _compared(results: Results) -> Iterator[str]:
    pairs = comparisons.pair_rows(results)
    if pairs:
        yield "## All arms compared"
        yield table(
            ["comparison", "verdict", "intervals over", *results.summary_labels.values(),
             "better / alike / worse", "could have seen", "speed-up"],
            map(_pair, pairs),
            num_texts=3,
        )  # fmt: skip
    if explained := comparisons.explained_rows(results):
        yield "### How much of the gain a plain arm explains"
        yield table(
            ["gain in the", "how", "explained", "95 % interval"],
            (
                [row.label, row.share.reason, numbers.percent(row.share.value),
                 numbers.interval(row.share.ends, numbers.percent)]
                for row in explained
            ),
            num_texts=2,
        )  # fmt: skip


def _pair(pair: comparisons.PairRow) -> list[str]:
    counts = pair.tally
    return [
        f"{pair.tuned} - {pair.baseline}",
        pair.outcome,
        pair.basis.value,
        *(numbers.with_interval(judged.value, judged.ends, numbers.signed) for judged in pair.summaries),
        f"{counts.num_better} / {counts.num_no_difference} / {counts.num_worse}",
        numbers.nats(pair.minimal_detectable_effect),
        sentences.factor(pair.speed_up),
    ]


def _domains(results: Results) -> Iterator[str]:
    yield "## Every domain"
    yield "Held-out loss in nats per token; lower is better."
    yield _loss_table("domain", results, views.domain_rows(results))
    if sets := views.set_rows(results):
        yield "### Text that is not trained on"
        yield _loss_table("set", results, sets)


def _loss_table(head: str, results: Results, rows: Iterable[views.DomainRow]) -> str:
    return table(
        [head, *map(visible, results.arm_names), *_difference_head(results)],
        ([row.name, *_losses(results, row.losses, row.difference)] for row in rows),
    )


def _repetition(results: Results, max_epochs: float) -> Iterator[str]:
    repeated = views.repeated_domains(results, max_epochs=max_epochs)
    lead, num_domains = visible(results.lead), len(results.domains)
    yield "## How often each domain was read"
    yield paragraph("Epochs", f"{lead} read {len(repeated)} of {num_domains} domains more than {max_epochs:g} times")
    yield table(
        ["domain", *map(visible, results.arm_names)],
        ([row.name, *map(numbers.epochs, row.epochs)] for row in views.domain_rows(results)),
    )


def _trust(results: Answers) -> Iterator[str]:
    yield "## How far the weights can be trusted"
    alarms = trust.alarm_rows(results)
    if alarms:
        yield table(
            ["alarm", "finding", "what to do"],
            ([a.name, "; ".join([*a.findings, *([f"and {a.num_more} more"] if a.num_more else [])]), a.remedy]
             for a in alarms),
            num_texts=3,
        )  # fmt: skip
    else:
        yield "No check raised an alarm."
    yield table(["check", "figure"], sentences.trust_facts(results))
    rounds = trust.round_rows(results)
    search = trust.lead_search(results)
    if rounds and search and search.convergence:
        yield paragraph("Rounds", search.convergence.status or "not judged")
        yield table(["round", "largest change"], ([str(r.number), numbers.percent(r.change)] for r in rounds))


def _tasks(results: Results) -> Iterator[str]:
    rows, pairs = tasks.task_rows(results), tasks.difference_rows(results)
    if rows:
        yield "## Few-shot tasks"
        yield table(
            ["task", "metric", "documents", "shots", *map(visible, results.arm_names)],
            (
                [row.name, row.metric, numbers.whole(row.num_documents), numbers.whole(row.num_fewshot),
                 *map(numbers.with_error, row.scores, row.standard_errors)]
                for row in rows
            ),
            num_texts=2,
        )  # fmt: skip
    if pairs:
        yield "### Differences in the tasks"
        yield "With 95 % intervals: of a task over its documents, of the average over seeds."
        yield table(
            ["task", *(f"{pair.tuned} - {pair.baseline}" for pair in pairs)],
            ([row.name, *(_task_difference(pair.differences[i]) for pair in pairs)] for i, row in enumerate(rows)),
        )


def _task_difference(found: Estimate | None) -> str:
    return numbers.MISSING if found is None else numbers.with_interval(found.value, found.ends)


def _runs(results: Results) -> Iterator[str]:
    yield "## Models and cost"
    yield table(
        ["model", "method", "folder", "seeds", "steps", "parameters", "tokens", "FLOPs", "time"],
        (
            [row.name, row.method, f"same as {row.same_as}" if row.same_as else row.folder,
             ", ".join(map(str, row.seeds)), numbers.whole(row.steps), numbers.count(row.num_parameters),
             numbers.count(row.num_tokens), numbers.count(row.flops), numbers.duration(row.train_seconds)]
            for row in views.cost_rows(results)
        ),
        num_texts=3,
    )  # fmt: skip


def _recipe(results: Answers, recipe: str) -> Iterator[str]:
    yield "## Reproduce"
    if command := results.provenance.get("command"):
        yield code_block(str(command))
    versions = [[key, str(value)] for key, value in results.provenance.items() if key != "command"]
    yield table(["", "version or digest"], versions, num_texts=2)
    yield "### Recipe, resolved"
    yield code_block(recipe)
