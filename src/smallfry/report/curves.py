"""The report's second figure: learning curves, one line a seed, one colour a rung."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from ..record import Assessment, CurvePoint, Row
from .format import METRIC_NAMES, one_line, seconds_text, target_text
from .svg import WIDE, Box, Chart, Drawing, Label, Placed, Scale, place_labels, text_width

_COLOURS = 6
# Durations in seconds that read well, on a logarithmic axis and as steps of a linear one.
_LOG_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 300.0, 900.0, 3600.0, 10800.0, 36000.0, 86400.0)
_STEP_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000, 86400)
_PANEL_HEIGHT = 300.0


@dataclass(frozen=True)
class Line:
    """One seed's curve: ``(x, y)`` in data units, x being seconds or steps."""

    rung: str
    colour: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Panel:
    title: str
    lines: list[Line]
    log_y: bool
    tick: Callable[[float], str]
    target: float | None = None


def curve_rows(assessment: Assessment) -> list[Row]:
    """Rows with at least one learning curve of two points or more, smallest first."""
    rows = [r for r in assessment.rows if any(len(points) > 1 for points in r.curves.values())]
    return sorted(rows, key=lambda r: r.params or 0)


def learning_curves(assessment: Assessment, width: float = WIDE, name: str = "curves", style: str = "") -> Chart | None:
    """Validation loss and validation score while training, side by side or (narrow) one above the other.

    Args:
        assessment: The record.
        width: Width in user units: ``WIDE``, or ``NARROW`` for a telephone.
        name: Prefix of ids, unique within a page.
        style: CSS for a figure that stands alone.

    Returns:
        The chart, or None when no candidate has a curve to draw.
    """
    rows = curve_rows(assessment)
    timed = all(p.seconds is not None for r in rows for points in r.curves.values() for p in points)
    panels = [p for p in _panels(assessment, rows, timed) if p.lines]
    if not panels:
        return None
    side_by_side = width >= 700 and len(panels) == 2
    panel_width = (width - 28) / 2 if side_by_side else width
    height = _PANEL_HEIGHT if side_by_side or len(panels) == 1 else 2 * _PANEL_HEIGHT + 16
    names = ", ".join(one_line(r.name) for r in rows)
    drawing = Drawing(width, height, name, "Learning curves", f"Validation loss and score of {names}", style)
    placed: list[Placed] = []
    hard: list[Box] = []
    for i, panel in enumerate(panels):
        left = (panel_width + 28) * i if side_by_side else 0.0
        top = 0.0 if side_by_side else (_PANEL_HEIGHT + 16) * i
        labels, boxes = _draw_panel(drawing, panel, Box(left, top, left + panel_width, top + _PANEL_HEIGHT), timed)
        placed += labels
        hard += boxes
    return Chart(drawing.render(), placed, hard)


def _panels(assessment: Assessment, rows: list[Row], timed: bool) -> list[_Panel]:
    job = assessment.job

    def lines(value: Callable[[CurvePoint], float | None]) -> list[Line]:
        found = []
        for index, row in enumerate(rows):
            for points in row.curves.values():
                pairs = [((p.seconds or 0.0) if timed else float(p.step), value(p)) for p in points]
                kept = tuple((x, y) for x, y in pairs if y is not None and math.isfinite(x) and math.isfinite(y))
                if len(kept) > 1:
                    found.append(Line(row.name, _colour(index, len(rows)), kept))
        return found

    losses = lines(lambda p: p.valid_loss)
    values = [y for line in losses for _, y in line.points]
    log_loss = bool(values) and min(values) > 0 and max(values) > 4 * min(values)
    suffix = ", log scale" if log_loss else ""
    lower = "" if job.higher_is_better else ", lower is better"
    measure = METRIC_NAMES[job.metric]
    return [
        _Panel(f"validation loss (nats{suffix})", losses, log_loss, lambda v: f"{v:.3g}"),
        _Panel(
            f"validation {measure}{lower}",
            lines(lambda p: p.valid_score),
            False,
            lambda v: target_text(job.metric, round(v, 6)),
            job.target,
        ),
    ]


def _colour(index: int, count: int) -> int:
    """Spread the rungs over the ordered palette; few rungs get distant colours."""
    return index if count > _COLOURS else round(index * (_COLOURS - 1) / max(count - 1, 1))


def _draw_panel(drawing: Drawing, panel: _Panel, frame: Box, timed: bool) -> tuple[list[Placed], list[Box]]:
    xs = [x for line in panel.lines for x, _ in line.points if x > 0]
    ends = [line.points[-1][0] for line in panel.lines]
    log_x = bool(xs) and max(ends) > 5 * max(min(ends), 1e-9) and min(xs) > 0
    area = Box(frame.x0 + 46, frame.y0 + 30, frame.x1 - 8, frame.y1 - 46)
    x = Scale(min(xs) if log_x else 0.0, max(max(ends), 1e-9) * (1.6 if log_x else 1.12), area.x0, area.x1, log_x)
    y = _y_scale(panel, area)
    for tick in y.ticks(5):
        drawing.line(area.x0, y(tick), area.x1, y(tick), "sf-grid")
        drawing.text(panel.tick(tick), area.x0 - 7, y(tick) + 4, anchor="end")
    for tick in duration_ticks(x, 6) if timed else x.ticks(5):
        drawing.line(x(tick), area.y1, x(tick), area.y1 + 5, "sf-axis")
        text = seconds_text(tick).replace(".0 s", " s") if timed else f"{tick:,.0f}"
        drawing.text(text, min(x(tick), frame.x1 - text_width(text) / 2), area.y1 + 20, anchor="middle")
    drawing.line(area.x0, area.y1, area.x1, area.y1, "sf-axis")
    what = "training time" if timed else "optimiser steps"
    drawing.text(f"{what}{' (log scale)' if log_x else ''}", area.x1, frame.y1 - 8, anchor="end")
    drawing.text(panel.title, frame.x0, frame.y0 + 14, "sf-name")
    if panel.target is not None and y.lo <= panel.target <= y.hi:
        drawing.line(area.x0, y(panel.target), area.x1, y(panel.target), "sf-target")
    return _draw_lines(drawing, panel, x, y, area)


def duration_ticks(scale: Scale, count: int) -> list[float]:
    """About ``count`` durations (seconds) that read well: 10 s, 1 min, 5 min rather than 100 s."""
    if scale.log:
        found = [s for s in _LOG_SECONDS if scale.lo <= s <= scale.hi]
        return found[:: math.ceil(len(found) / count) or 1]
    step = next((float(s) for s in _STEP_SECONDS if scale.hi / s <= count), scale.hi / count)
    return [i * step for i in range(math.floor(scale.hi / step) + 1)]


def _y_scale(panel: _Panel, area: Box) -> Scale:
    values = [y for line in panel.lines for _, y in line.points]
    lo, hi = min(values), max(values)
    if panel.target is not None and lo - (hi - lo) < panel.target < hi + (hi - lo):
        lo, hi = min(lo, panel.target), max(hi, panel.target)
    if panel.log_y:
        return Scale(lo / 1.08, hi * 1.08, area.y1, area.y0, log=True)
    pad = 0.06 * (hi - lo) or 0.05 * abs(hi) or 0.01
    return Scale(lo - pad if lo < 0 or lo - pad > 0 else 0.0, hi + pad, area.y1, area.y0)


def _draw_lines(drawing: Drawing, panel: _Panel, x: Scale, y: Scale, area: Box) -> tuple[list[Placed], list[Box]]:
    soft: list[tuple[Box, float]] = []
    labels: list[Label] = []
    hard: list[Box] = []
    named: set[str] = set()
    # Largest rung first, so that its long curve's label is placed where the lines end.
    for line in sorted(panel.lines, key=lambda item: -item.points[-1][0]):
        kept = [p for p in line.points if not x.log or p[0] > 0]
        path = [(x.clamp(px), y.clamp(py)) for px, py in kept]
        drawing.path(path, f"sf-curve sf-r{line.colour % _COLOURS}{' sf-dash' if line.colour >= _COLOURS else ''}")
        for (x0, y0), (x1, y1) in itertools.pairwise(path):
            steps = max(int(math.hypot(x1 - x0, y1 - y0) / 8), 1)
            for i in range(steps + 1):
                px, py = x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps
                soft.append((Box(px - 1, py - 1, px + 1, py + 1), 4.0))
        if path and line.rung not in named:
            named.add(line.rung)
            end_x, end_y = path[-1]
            drawing.add("circle", f"sf-point sf-r{line.colour % _COLOURS}", cx=end_x, cy=end_y, r=3.5)
            hard.append(Box(end_x - 3.5, end_y - 3.5, end_x + 3.5, end_y + 3.5))
            labels.append(Label(one_line(line.rung, 14), end_x, end_y, 7.0, f"sf-r{line.colour % _COLOURS} sf-tinted"))
    placed = place_labels(labels, hard, soft, area)
    drawing.labels(placed)
    return placed, hard
