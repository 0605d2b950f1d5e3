"""The report for the command line: the verdict, one table, the advice."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from ..record import Assessment, Row
from . import words
from .format import (
    METRIC_NAMES,
    bytes_text,
    difference_text,
    interval_text,
    milliseconds_text,
    one_line,
    p_text,
    score_text,
    seconds_text,
    target_text,
)

_ROOMY, _ENOUGH = 100, 76  # columns from which the paired difference, and the times, are shown too
_COLOURS = {"workable": "green", "not": "red", "undecided": "yellow"}


def render_terminal(assessment: Assessment) -> Group:
    """What ``smallfry assess`` shows at its end; foreign text never reaches the terminal as markup or control codes.

    Args:
        assessment: The record.

    Returns:
        Something for ``rich.console.Console.print``.
    """
    a = assessment
    lines = [Text(words.headline(a), style="bold"), Text(words.lead(a)), Text("")]
    lines += [Text(f"warning: {one_line(w)}", style="yellow") for w in a.job.warnings]
    after = [Text("")]
    if a.prediction is not None and a.prediction.points:
        points = ", ".join(
            f"{one_line(p.name, 20)} {score_text(a.job.metric, p.score)} ({interval_text(a.job.metric, p.ci)})"
            for p in a.prediction.points
        )
        after.append(Text(f"Predicted, not measured: {points}", style="dim"))
    for row in a.rows:
        if row.verdict == "undecided" and row.examples_to_decide:
            count = f"{row.examples_to_decide:,}"
            after.append(Text(f"{one_line(row.name, 40)}: about {count} more test examples would decide"))
    if words.detectable(a):
        after.append(Text(words.detectable(a), style="dim"))
    if a.advice.strip():
        after.append(Text.assemble(("Advice: ", "bold"), one_line(a.advice)))
    return Group(*lines, _Candidates(a), *after)


class _Candidates:
    """The table, with fewer columns where the terminal is narrow."""

    def __init__(self, assessment: Assessment) -> None:
        self.assessment = assessment

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _table(self.assessment, options.max_width)


def _table(a: Assessment, width: int) -> Table:
    metric = a.job.metric
    goal = f", target {target_text(metric, a.job.target)}" if a.job.target is not None else ""
    lower = "" if a.job.higher_is_better else ", lower is better"
    table = Table(
        title=Text(
            f"{one_line(a.job.name, 40)}: {METRIC_NAMES[metric]} on {a.job.n_test:,} test examples{goal}{lower}"
        ),
        title_justify="left",
        title_style="",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    table.add_column("candidate", min_width=14)
    for name in ("score", "95% interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name in ("size", "train", "answer") if width >= _ENOUGH else ("size",):
        table.add_column(name, justify="right", no_wrap=True)
    if width >= _ROOMY:
        table.add_column("paired difference", no_wrap=True)
    groups = words.grouped(a)
    for i, (_, rows) in enumerate(groups):
        for j, row in enumerate(rows):
            if i and not j:
                table.add_row()
            table.add_row(*_cells(a, row)[: len(table.columns)])
    return table


def _cells(a: Assessment, row: Row) -> list[Text]:
    metric, favours = a.job.metric, words.favours(a, row)
    difference = Text("")
    if row.versus is not None:
        tone = {1: "green", -1: "red", 0: ""}[favours]
        p = f" {p_text(row.versus.p)}" if row.versus.p is not None else ""
        difference = Text(f"{difference_text(metric, row.versus.difference, unit=False)}{p}", style=tone)
    return [
        Text(one_line(row.name, 40), style="bold" if row is words.chosen(a) else ""),
        Text(score_text(metric, row.score)),
        Text(interval_text(metric, row.ci)),
        Text(row.verdict or "", style=_COLOURS.get(row.verdict or "", "dim")),
        Text(bytes_text(row.bytes)),
        Text(seconds_text(row.train_seconds)),
        Text(milliseconds_text(row.latency_ms)),
        difference,
    ]
