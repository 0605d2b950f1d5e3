"""From an assessment to what people read: a self-contained page, Markdown, figures, and a table for the terminal."""

from __future__ import annotations

from pathlib import Path

from ..files import write_atomic
from ..record import Assessment
from .charts import score_by_size
from .curves import learning_curves
from .html import render_html
from .markdown import render_markdown
from .style import FIGURE
from .terminal import render_terminal

__all__ = ["render_html", "render_markdown", "render_terminal", "write_report"]


def write_report(assessment: Assessment, out_dir: Path) -> None:
    """Write ``report.html``, ``report.md`` and ``figures/*.svg``, each atomically.

    Args:
        assessment: The record; nothing else is read.
        out_dir: Where to write; made when absent. Files of an earlier report are replaced, others left alone.
    """
    figures = (
        ("Score against size", "figures/score-by-size.svg", score_by_size(assessment, style=FIGURE)),
        ("Learning curves", "figures/learning-curves.svg", learning_curves(assessment, style=FIGURE)),
    )
    for _, path, chart in figures:
        if chart is not None:
            write_atomic(out_dir / path, f'<?xml version="1.0" encoding="UTF-8"?>\n{chart.svg}\n')
    shown = [(title, path) for title, path, chart in figures if chart is not None]
    write_atomic(out_dir / "report.md", render_markdown(assessment, shown))
    write_atomic(out_dir / "report.html", render_html(assessment))
