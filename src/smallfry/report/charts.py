"""The report's first figure: score against size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..record import Assessment, Interval
from .format import METRIC_NAMES, bytes_text, interval_text, one_line, params_text, score_text, target_text
from .svg import FONT_SIZE, WIDE, Box, Chart, Drawing, Label, Scale, place_labels, text_width
from .words import TYPE_WORDS, seed_spread, verdict_word

_SHAPES = {"lm": "circle", "baseline": "square", "combined": "diamond", "pretrained": "triangle"}
_ROOMY = 700.0  # width from which candidates are named beside their points
_SHELF = 34.0  # width of the strip at an edge for candidates beyond the axis


@dataclass(frozen=True)
class Mark:
    """One candidate on the score-against-size figure.

    Args:
        name: Its label.
        type: Row type, deciding shape and colour.
        size: Bytes; None when unknown.
        score: Score in the metric's unit.
        ci: 95% interval, or None.
        seeds: Scores of single seeds, drawn when there are two or more.
        predicted: True for an extrapolated rung.
        tip: Tooltip.
    """

    name: str
    type: str
    size: float | None
    score: float
    ci: Interval | None
    seeds: tuple[float, ...] = ()
    predicted: bool = False
    tip: str = ""


def marks(assessment: Assessment) -> list[Mark]:
    """Everything the score-against-size figure shows: measured rows, then extrapolated rungs."""
    metric = assessment.job.metric
    found = []
    for row in assessment.rows:
        if not math.isfinite(row.score):
            continue
        facts = [f"{score_text(metric, row.score)} ({interval_text(metric, row.ci)})", TYPE_WORDS[row.type]]
        facts += [bytes_text(row.bytes)] if row.bytes is not None else []
        facts += [seed_spread(assessment, row)] if row.seeds else []
        facts += [verdict_word(row)]
        size = float(row.bytes) if row.bytes else 2.0 * row.params if row.params else None
        seeds = tuple(s.score for s in row.seeds if math.isfinite(s.score))
        tip = f"{one_line(row.name)}: {', '.join(facts)}"
        found.append(Mark(row.name, row.type, size, row.score, _finite(row.ci), seeds, tip=tip))
    shares = [r.bytes / r.params for r in assessment.rows if r.type == "lm" and r.bytes and r.params]
    per_parameter = median(shares) if shares else 2.0
    for point in assessment.prediction.points if assessment.prediction else []:
        if math.isfinite(point.score) and point.params > 0:
            score = f"{score_text(metric, point.score)} ({interval_text(metric, point.ci)})"
            tip = f"{one_line(point.name)}: predicted {score}, {params_text(point.params)} parameters, not trained"
            size = point.params * per_parameter
            found.append(Mark(point.name, "lm", size, point.score, _finite(point.ci), predicted=True, tip=tip))
    return found


def _finite(ci: Interval | None) -> Interval | None:
    return ci if ci is not None and all(math.isfinite(v) for v in ci) else None


@dataclass
class _Plot:
    """The score-against-size figure while it is drawn: scales, frame, and what labels must keep clear of."""

    drawing: Drawing
    area: Box
    x: Scale
    y: Scale
    hard: list[Box]
    soft: list[tuple[Box, float]]


def score_by_size(assessment: Assessment, width: float = WIDE, name: str = "size", style: str = "") -> Chart | None:
    """Score against size on disk: rungs, extrapolated rungs, baselines and the target.

    Args:
        assessment: The record.
        width: Width in user units: ``WIDE``, or ``NARROW`` for a telephone.
        name: Prefix of ids, unique within a page.
        style: CSS for a figure that stands alone.

    Returns:
        The chart, or None when no candidate has a score.
    """
    shown = marks(assessment)
    if not shown:
        return None
    keys = _keys(shown) if width < _ROOMY else {}
    plot = _frame(assessment, shown, width, name, style, keys)
    _draw_target(plot, assessment)
    _draw_trend(plot, shown)
    labels = [_draw_mark(plot, mark, assessment, keys.get(i)) for i, mark in enumerate(shown)]
    _label_target(plot, assessment)
    # Rungs are what the figure is about: they choose their places first.
    order = sorted(range(len(shown)), key=lambda i: (shown[i].type != "lm", shown[i].predicted))
    placed = place_labels([labels[i] for i in order], plot.hard, plot.soft, plot.area)
    plot.drawing.labels(placed)
    return Chart(plot.drawing.render(), placed, plot.hard)


def axis_ranges(assessment: Assessment, shown: Sequence[Mark]) -> tuple[Interval, Interval]:
    """The ranges worth showing of size (bytes) and score, around the rungs and the target.

    A candidate far outside is drawn at the edge with an arrow and its number, so that a useless baseline does not
    squeeze the differences that matter; a candidate better than every rung is always inside.
    """
    job = assessment.job
    rungs = [m for m in shown if m.type == "lm"] or list(shown)
    sizes = [m.size for m in rungs if m.size] or [1e6]
    near, far = min(sizes), max(sizes)
    others = [m.size for m in shown if m.size and m.size >= near / 40]
    x_range = (min([*others, near]) / 1.7, max([*others, far]) * 1.2)

    core = [v for m in rungs if not m.predicted for v in (m.score, *(m.ci or ()), *m.seeds)]
    core += [m.score for m in rungs if m.predicted]
    core += [job.target] if job.target is not None else []
    lo, hi = min(core), max(core)
    span = max(hi - lo, 0.02 if job.metric != "bits_per_byte" else 0.02 * max(abs(hi), 1e-9))
    for mark in shown:
        better = mark.score > hi if job.higher_is_better else mark.score < lo
        if better or lo - 0.75 * span <= mark.score <= hi + 0.75 * span:
            ends = [v for v in (mark.score, *(mark.ci or ())) if lo - 1.1 * span <= v <= hi + 1.1 * span]
            lo, hi = min([lo, mark.score, *ends]), max([hi, mark.score, *ends])
    pad = 0.05 * max(hi - lo, span)
    lo, hi = lo - pad, hi + pad
    if job.metric != "bits_per_byte":
        lo, hi = max(lo, 0.0), min(hi, 1.0)
    elif lo < 0 <= min(m.score for m in shown):
        lo = 0.0
    return x_range, (lo, hi)


def _keys(shown: Sequence[Mark]) -> dict[int, str]:
    """Letters for all but the rungs: on a narrow figure their names stand below it."""
    others = [i for i, m in enumerate(shown) if m.type != "lm"]
    return {i: chr(65 + k) if k < 26 else f"A{k - 25}" for k, i in enumerate(others)}


def _frame(
    assessment: Assessment, shown: Sequence[Mark], width: float, name: str, style: str, keys: dict[int, str]
) -> _Plot:
    """Axes, grid, legend: everything but the data."""
    job, (x_range, y_range) = assessment.job, axis_ranges(assessment, shown)
    legend = _legend_layout(shown, width)
    top = legend[-1][3] + 40.0
    below = 50.0 + (len(keys) * 19.0 + 12.0 if keys else 0.0)
    height = top + 350.0 + below
    area = Box(50.0, top, width - 8.0, height - below)
    measure = METRIC_NAMES[job.metric]
    low = [m for m in shown if m.score < y_range[0]]
    high = [m for m in shown if m.score > y_range[1]]
    small = [m for m in shown if not m.size or m.size < x_range[0]]
    left = area.x0 + ((2 * _SHELF if width >= _ROOMY else 54.0) if small else 10.0)
    bottom = area.y1 - (_SHELF if low else 4.0)
    x = Scale(*x_range, left, area.x1 - 34, log=True)
    y = Scale(*y_range, bottom, area.y0 + (_SHELF if high else 4.0))
    title = f"{measure} against size on disk"
    drawing = Drawing(width, height, name, title, "; ".join(m.tip for m in shown), style)
    for tick in y.ticks(6):
        drawing.line(area.x0, y(tick), area.x1, y(tick), "sf-grid")
        drawing.text(_tick_text(assessment, tick), area.x0 - 7, y(tick) + 4, anchor="end")
    for tick in x.ticks(8 if width >= _ROOMY else 4):
        drawing.line(x(tick), area.y1, x(tick), area.y1 + 5, "sf-axis")
        drawing.text(_size_tick(tick), x(tick), area.y1 + 20, anchor="middle")
    drawing.line(area.x0, area.y1, area.x1, area.y1, "sf-axis")
    if small:
        drawing.line(left - 6, area.y0, left - 6, area.y1, "sf-edge")
        drawing.text("smaller", (area.x0 + left - 6) / 2, area.y1 + 20, anchor="middle")
    for edge in ([bottom + 4] if low else []) + ([y(y_range[1]) - 4] if high else []):
        drawing.line(area.x0, edge, area.x1, edge, "sf-edge")
    drawing.text("size on disk (log scale)", area.x1, area.y1 + 40, anchor="end")
    better = "" if job.higher_is_better else ", lower is better"
    drawing.text(f"{measure}{better}", 0, top - 14, "sf-name")
    for kind, text, at, line in legend:
        _legend_item(drawing, kind, text, at, line)
    for row, (i, key) in enumerate(keys.items()):
        base = area.y1 + 66 + 19 * row
        drawing.text(key, 6, base, f"sf-{shown[i].type} sf-tinted")
        drawing.text(one_line(shown[i].name, 42), 26, base)
    return _Plot(drawing, area, x, y, [], [])


def _tick_text(assessment: Assessment, value: float) -> str:
    return target_text(assessment.job.metric, round(value, 6))


def _size_tick(value: float) -> str:
    return bytes_text(value).replace(".0 ", " ")


def _legend_layout(shown: Sequence[Mark], width: float) -> list[tuple[str, str, float, float]]:
    """Legend entries with their positions, wrapped to the width: (kind, text, x, y)."""
    entries = [(kind, TYPE_WORDS[kind]) for kind in _SHAPES if any(m.type == kind and not m.predicted for m in shown)]
    if any(len(m.seeds) > 1 and m.type == "lm" for m in shown):
        entries.append(("seed", "one seed"))
    if any(m.predicted for m in shown):
        entries.append(("predicted", "predicted, not trained"))
    placed, x, y = [], 0.0, 14.0
    for kind, text in entries:
        need = 16 + text_width(text) + 14
        if x > 0.0 and x + need - 14 > width:
            x, y = 0.0, y + 20.0
        placed.append((kind, text, x, y))
        x += need
    return placed


def _legend_item(drawing: Drawing, kind: str, text: str, x: float, y: float) -> None:
    if kind == "seed":
        drawing.add("circle", "sf-seed", cx=x + 6, cy=y - 4, r=2.4)
    elif kind == "predicted":
        drawing.marker("circle", x + 6, y - 4, "sf-hollow sf-lm")
    else:
        drawing.marker(_SHAPES[kind], x + 6, y - 4, f"sf-point sf-{kind}")
    drawing.text(text, x + 17, y)


def _draw_target(plot: _Plot, assessment: Assessment) -> None:
    target = assessment.job.target
    if target is None:
        return
    y = plot.y(target)
    plot.drawing.line(plot.area.x0, y, plot.area.x1, y, "sf-target")
    plot.soft.append((Box(plot.area.x0, y - 1, plot.area.x1, y + 1), 40.0))


def _label_target(plot: _Plot, assessment: Assessment) -> None:
    """Name the target line at its right-most free place, above or below it."""
    target = assessment.job.target
    if target is None:
        return
    text, y = f"target {target_text(assessment.job.metric, target)}", plot.y(target)
    width = text_width(text)
    for right in range(int(plot.area.x1) - 2, int(plot.area.x0 + width), -8):
        for base in (y - 6, y + 4 + FONT_SIZE):
            box = Box(right - width, base - FONT_SIZE, right, base + 3)
            if box.within(plot.area) and not any(box.overlaps(other, 2.0) for other in plot.hard):
                plot.drawing.text(text, right, base, "sf-label sf-target-text", "end")
                plot.hard.append(box)
                return


def _draw_trend(plot: _Plot, shown: Sequence[Mark]) -> None:
    """Join the rungs by size: solid where measured, dashed on to those that are predicted."""
    rungs = sorted((m for m in shown if m.type == "lm" and m.size), key=lambda m: m.size or 0.0)
    for first, second in itertools.pairwise(rungs):
        ends = [(plot.x.clamp(m.size or 0.0), plot.y.clamp(m.score)) for m in (first, second)]
        dashed = " sf-dash" if first.predicted or second.predicted else ""
        plot.drawing.path(ends, f"sf-trend{dashed}")
        (x0, y0), (x1, y1) = ends
        for i in range(1, 12):
            x, y = x0 + (x1 - x0) * i / 12, y0 + (y1 - y0) * i / 12
            plot.soft.append((Box(x - 2, y - 2, x + 2, y + 2), 5.0))


def _draw_mark(plot: _Plot, mark: Mark, assessment: Assessment, key: str | None) -> Label:
    """Draw a candidate's interval, seeds and point; return the label still to be placed."""
    drawing, area, metric = plot.drawing, plot.area, assessment.job.metric
    tiny = not mark.size or mark.size < plot.x.lo
    x = (area.x0 + plot.x.start - 6) / 2 if tiny else plot.x(mark.size or 0.0)
    name = key or one_line(mark.name, 36)
    tint = f"sf-{mark.type}"
    style = "sf-name" if mark.type == "lm" and not mark.predicted else f"{tint} sf-tinted"
    if not plot.y.lo <= mark.score <= plot.y.hi:
        below = mark.score < plot.y.lo
        y = area.y1 - _SHELF / 2 + 3 if below else area.y0 + _SHELF / 2 - 3
        drawing.marker("down" if below else "up", x, y, f"sf-point {tint}", mark.tip)
        plot.hard.append(Box(x - 7, y - 7, x + 7, y + 7))
        return Label(f"{name} {score_text(metric, mark.score)}", x, y, 9.0, style)
    y = plot.y(mark.score)
    if mark.ci is not None:
        low, high = plot.y.clamp(mark.ci[0]), plot.y.clamp(mark.ci[1])
        drawing.line(x, low, x, high, f"sf-bar {tint}{' sf-dash' if mark.predicted else ''}")
        plot.hard.append(Box(x - 1.5, min(low, high), x + 1.5, max(low, high)))
        for end, value in ((low, mark.ci[0]), (high, mark.ci[1])):
            if plot.y.lo <= value <= plot.y.hi:
                drawing.line(x - 4, end, x + 4, end, f"sf-bar {tint}")
    if mark.type == "lm" and len(mark.seeds) > 1:
        for score in mark.seeds:
            dot = plot.y.clamp(score)
            drawing.add("circle", "sf-seed", cx=x + 10, cy=dot, r=2.4)
            plot.hard.append(Box(x + 7, dot - 3, x + 13, dot + 3))
    drawing.marker(_SHAPES[mark.type], x, y, f"{'sf-hollow' if mark.predicted else 'sf-point'} {tint}", mark.tip)
    plot.hard.append(Box(x - 6.5, y - 6.5, x + 6.5, y + 6.5))
    return Label(name, x, y, 9.0, style)
