"""Suites' results as tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from smallfry.evals.paired import Paired
from smallfry.evals.suites.measure import SuiteResult, TaskComparison


def show_result(result: SuiteResult, console: Console) -> None:
    """A suite's tasks, its score, its controls, and what else was measured."""
    over = f" over {len(result.tasks)} tasks" if len(result.tasks) > 1 else ""
    if result.missing:
        over += f" of {len(result.tasks) + len(result.missing)} (no data: {', '.join(result.missing)})"
    lines = [f"{result.suite}{over}: {_score(result, result.centered)}"]
    if result.centered:
        lines[0] += f" centred by {result.centered}"
        lines += [f"centred by {v}: {_score(result, v)}" for v in result.tasks[0].floors if v != result.centered]
    lines += [f"control {name}: {_score(control, result.centered)}" for name, control in result.controls.items()]
    table = Table(title=Text(result.model), title_justify="left")
    table.add_column("task", no_wrap=True)
    for name in ("n", "accuracy", "95% interval", "centred", "shots"):
        table.add_column(name, justify="right", no_wrap=True)
    for task in (*result.tasks, *result.beside):
        low, high = task.interval()
        n = f"{task.n:,}" + (" of " + f"{task.total:,}, stopped at the floor" if task.stopped else "")
        centred = f"{task.centered(result.centered or 'v1'):+.3f}" if task.floors else ""
        n += f", {task.cut:,} cut" if task.cut else ""
        cells = (n, f"{task.accuracy:.3f}", f"{low:.3f} to {high:.3f}", centred, f"{task.shots:.1f}")
        table.add_row(Text(task.name), *cells)
    console.print(table)
    for line in lines:
        console.print(line, style="italic", markup=False, highlight=False, soft_wrap=True)
    if result.measures:
        console.print(_measures(result))
    for note in result.notes:
        console.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _measures(result: SuiteResult) -> Table:
    """Each measure, what the controls have of it, and the true texts."""
    table = Table()
    table.add_column("measure", no_wrap=True)
    for name in ("n", "value", "95% interval"):
        table.add_column(name, justify="right", no_wrap=True)
    others = {name: {m.name: m for m in control.measures} for name, control in result.controls.items()}
    shown = [name for name, measures in others.items() if measures]
    for name in (*shown, "true texts"):
        table.add_column(name, justify="right", no_wrap=True)
    for m in result.measures:
        beside = [f"{others[name][m.name].value:.3f}" if m.name in others[name] else "" for name in shown]
        interval = "" if m.ci is None else f"{m.ci[0]:.3f} to {m.ci[1]:.3f}"
        table.add_row(
            m.name, f"{m.n:,}", f"{m.value:.3f}", interval, *beside, "" if m.reference is None else f"{m.reference:.3f}"
        )
    return table


def _score(result: SuiteResult, version: str | None) -> str:
    low, high = result.interval(version)
    return f"{result.score(version):.4f} [{low:.4f}, {high:.4f}]"


def show_comparison(a: str, b: str, found: Sequence[TaskComparison], console: Console) -> list[dict[str, Any]]:
    """Two models task by task; also as plain data."""
    table = Table(title=Text(f"{a} minus {b}, the same items"), title_justify="left")
    table.add_column("task", no_wrap=True)
    for name in ("n", "difference", "95% interval", "p (Holm)", "shows"):
        table.add_column(name, justify="right", no_wrap=True)
    for c in found:
        shows = "-" if c.detectable is None else f"{c.detectable:.3f}"
        cells = (f"{c.paired.difference:+.3f}", f"{c.paired.low:+.3f} to {c.paired.high:+.3f}", f"{c.adjusted:.2g}")
        table.add_row(Text(c.name), f"{c.n:,}", *cells, shows)
    console.print(table)
    return [
        {"name": c.name, "n": c.n, **paired_dict(c.paired), "p_holm": c.adjusted, "detectable": c.detectable}
        for c in found
    ]


def paired_dict(paired: Paired) -> dict[str, Any]:
    """A paired difference as plain data."""
    return {"difference": paired.difference, "ci": [paired.low, paired.high], "p": paired.p_value}
