"""The live display of an assessment: the plan, one line a running task, one line a finished one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from smallfry.record import PlanStep
from smallfry.train import Progress as TrainingProgress


def duration(seconds: float) -> str:
    """``75`` -> ``1m 15s``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


class LiveWatcher:
    """Draws an assessment's progress on a terminal; plain lines where the output is not one.

    Args:
        console: Where to draw.
        budget: Seconds that may be spent, for the plan's title.
    """

    def __init__(self, console: Console, budget: float) -> None:
        self.console, self.budget = console, budget
        self.began = time.perf_counter()
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> LiveWatcher:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def plan(self, steps: Sequence[PlanStep]) -> None:
        """Show what is about to happen and how long it should take."""
        table = Table(title=f"Plan (budget {duration(self.budget)})", title_justify="left", show_header=False, box=None)
        for step in steps:
            table.add_row(escape(step.what), f"about {duration(step.seconds)}", style="dim")
        self.console.print(table)

    def started(self, key: str, seconds: float) -> None:
        """Add a line for a task."""
        self._tasks[key] = self._bars.add_task(escape(key), total=1.0, state="")

    def progress(self, key: str, progress: TrainingProgress) -> None:
        """Move a task's bar."""
        if key in self._tasks:
            state = f"step {progress.step:,}  loss {progress.loss:.3f}  {progress.tokens_per_second:,.0f} tok/s"
            self._bars.update(self._tasks[key], completed=progress.done, state=state)

    def say(self, key: str, text: str) -> None:
        """Print what went wrong with a task and was mended."""
        self.console.print(f"{'':>8}  {escape(key)}: {escape(text)}", style="yellow", highlight=False)

    def finished(self, key: str, text: str) -> None:
        """Replace a task's line by its result."""
        if key in self._tasks:
            self._bars.remove_task(self._tasks.pop(key))
        at = duration(time.perf_counter() - self.began)
        self.console.print(f"[dim]{at:>8}[/dim]  {escape(key)}  {escape(text)}", highlight=False)
