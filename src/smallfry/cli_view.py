"""How a running training is drawn: bars on a terminal, plain lines where the output is not one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

if TYPE_CHECKING:
    from smallfry.pretraining.plan import Line
    from smallfry.train import Progress

_RECENT = 20  # losses that the one shown is about the mean of
_EVERY = 0.2  # seconds between two drawings
_PLAIN_EVERY = 20.0  # seconds between two lines where the output is no terminal


class TrainingView:
    """Draws a training.

    Args:
        console: Where to draw.
        tables: Whether to show settings; whoever takes a prepared run up shows them then.
    """

    def __init__(self, console: Console, tables: bool = True) -> None:
        self.console, self.tables = console, tables
        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[state]}"),
            console=console, transient=True,
        )  # fmt: skip
        self._task = self._bars.add_task("", total=None, state="", visible=False)
        self._drawn = 0.0
        self._loss, self._losses = 0.0, 0
        self._first: tuple[float, float] | None = None  # share and seconds when this process began

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def say(self, text: str) -> None:
        """A sentence."""
        self.console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)

    def decided(self, lines: Sequence[Line]) -> None:
        """Settings and their reasons."""
        if not self.tables:
            return
        table = plain_table("Plan")
        for line in lines:
            table.add_row(escape(line.name), f"[bold]{escape(line.value)}[/bold]", escape(line.reason))
        self.console.print(table)

    def step(self, progress: Progress) -> None:
        """A step of the training."""
        self._losses += 1
        self._loss += (progress.loss - self._loss) / min(self._losses, _RECENT)
        if self._first is None:
            self._first = (progress.done, progress.seconds)
        self._draw("training", progress.done, self._state(progress))

    def _told(self, progress: Progress, found: str) -> None:
        """A line that stays, of what was measured on the way."""
        self._drawn = time.perf_counter()
        line = f"{progress.done:>4.0%}  {self._state(progress)}  {found}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _state(self, progress: Progress) -> str:
        from smallfry.progress import duration

        state = f"step {progress.step:>6,}  loss {self._loss:.3f}  {progress.tokens_per_second:,.0f} tokens/s"
        if self._first is not None and self._first[0] < progress.done < 1:
            rate = (progress.seconds - self._first[1]) / (progress.done - self._first[0])
            state += f"  {duration(rate * (1 - progress.done))} left"
        return state

    def _draw(self, what: str, done: float | None, state: str) -> None:
        now = time.perf_counter()
        terminal = self.console.is_terminal
        if now - self._drawn < (_EVERY if terminal else _PLAIN_EVERY):
            return
        self._drawn = now
        if terminal:
            self._bars.update(self._task, description=what, total=done and 1.0, completed=done or 0.0, state=state,
                              visible=True)  # fmt: skip
        elif done is None or done > 0:
            share = f"{what}: " if done is None else f"{done:>4.0%}  "
            self.console.print(f"{share}{state}", style="dim", markup=False, highlight=False, soft_wrap=True)

    def _hide(self) -> None:
        self._bars.update(self._task, visible=False)


def plain_table(title: str) -> Table:
    """A table of names and texts."""
    return Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
